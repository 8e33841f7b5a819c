package container

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/moby/moby/client"
)

// libpod asks a question of Podman's own, for which Docker's API has none. The
// caller closes the answer's body.
func libpod(ctx context.Context, cli *client.Client, path string) (*http.Response, error) {
	dial := cli.Dialer()
	own := &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true,
	}}
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://podman"+path, nil)
	if err != nil {
		return nil, err
	}
	return own.Do(ask)
}

// podmanVersion is empty where the engine is not Podman. The question that
// Docker's API has for that takes Podman a second and more: it runs several
// programs for the answer.
func podmanVersion(ctx context.Context, cli *client.Client) (string, error) {
	answer, err := libpod(ctx, cli, "/_ping")
	if err != nil {
		return "", err
	}
	return answer.Header.Get("Libpod-Api-Version"), answer.Body.Close()
}

// ofAUser reports whether an engine's socket belongs to an ordinary user, as
// that of a rootless Podman does.
func ofAUser(host string) bool {
	path, isUnix := strings.CutPrefix(host, "unix://")
	if !isUnix {
		return false
	}
	found, err := os.Stat(path)
	if err != nil {
		return false
	}
	stat, ok := found.Sys().(*syscall.Stat_t)
	return ok && stat.Uid != 0
}

// check runs a container's health check once.
func (e *engine) check(ctx context.Context, id string) error {
	answer, err := libpod(ctx, e.cli, "/v4.0.0/libpod/containers/"+id+"/healthcheck")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("health check of %s: %s", short(id), said)
	}
	return nil
}
