package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// podmanConfig is what Podman needs on more machines than it says: runc where
// crun does not know the control groups, no systemd, no journal.
const podmanConfig = `[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
`

// newPodman starts a service of Podman with storage of its own, which speaks the
// Docker API. Containers have limits, since those that it takes by itself need
// more than every root may.
func newPodman(ctx context.Context, dir string, images *served) (contestant, error) {
	program, err := exec.LookPath("podman")
	if err != nil {
		return nil, err
	}
	registries := fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", images.Addr())
	for name, text := range map[string]string{"containers.conf": podmanConfig, "registries.conf": registries} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	socket := filepath.Join(dir, "podman.sock")
	cmd := exec.Command(program, "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"system", "service", "--time=0", "unix://"+socket)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(dir, "containers.conf"), "CONTAINERS_REGISTRIES_CONF="+filepath.Join(dir, "registries.conf"))
	service, err := serviceOf(ctx, cmd, socket)
	if err != nil {
		return nil, err
	}
	engine := dockerEngine{called: "podman", late: true, end: func() error {
		return errors.Join(service.end(), syscall.Unmount(filepath.Join(dir, "root", "overlay"), 0)) // which it leaves
	}}
	for _, name := range []string{"nofile", "nproc"} {
		engine.limits = append(engine.limits, &api.Ulimit{Name: name, Soft: 4096, Hard: 4096})
	}
	c, err := engine.connect(ctx, images, client.WithHost("unix://"+socket))
	if err != nil {
		return nil, fmt.Errorf("%w: it says %s", err, strconv.Quote(string(service.said.text)))
	}
	return c, nil
}
