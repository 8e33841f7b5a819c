package container_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
	"github.com/locald/locald/runtime/runtimetest"
)

func TestImages(t *testing.T) {
	needEngine(t)
	runtimetest.Images(t, runtimetest.ImageSubject{
		Subject: runtimetest.Subject{
			Open: func(t *testing.T, owner runtime.Owner) runtime.Runtime {
				return open(t, container.Options{Owner: owner})
			},
			Output: written,
		},
		Forget: func(t *testing.T, image string) {
			repository := image[:strings.LastIndex(image, ":")] // also what a tag has moved away from
			if ids := strings.Fields(docker(t, "images", "-q", repository)); len(ids) > 0 {
				docker(t, append([]string{"rmi", "-f"}, ids...)...)
			}
		},
		Small: small,
	})
}

// bridge is a network interface for another Docker engine. One that is told to
// have none takes away the machine's.
func bridge(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("locald%d", os.Getpid())
	for _, args := range [][]string{{"link", "add", name, "type", "bridge"}, {"addr", "add", "192.0.2.1/24", "dev", name}} {
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "ip", "link", "delete", name).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return name
}

// small is a Docker engine of the test's own whose images are on a small file
// system. It starts nothing.
func small(t *testing.T, owner runtime.Owner) (runtime.Runtime, func()) {
	t.Helper()
	dockerd, err := exec.LookPath("dockerd")
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("another engine needs root and dockerd: %v", err)
	}
	dir, err := os.MkdirTemp("", "engine-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	root := filepath.Join(dir, "root")
	if err := errors.Join(os.Mkdir(root, 0o700), unix.Mount("tmpfs", root, "tmpfs", 0, "size=36m")); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	host := "unix://" + filepath.Join(dir, "docker.sock")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	engine := exec.CommandContext(ctx, dockerd, "--data-root="+root, "--exec-root="+filepath.Join(dir, "exec"), "--pidfile="+filepath.Join(dir, "pid"),
		"--host="+host, "--bridge="+bridge(t), "--iptables=false", "--ip-masq=false")
	engine.Cancel = func() error { return engine.Process.Signal(unix.SIGTERM) }
	var log bytes.Buffer
	engine.Stdout, engine.Stderr = &log, &log
	if err := engine.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = engine.Wait() }()
	t.Cleanup(func() { cancel(); <-ended })
	until(t, "another engine answers", func() bool {
		select {
		case <-ended:
			t.Skipf("another engine does not start: %s", log.String())
		default:
		}
		conn, err := net.Dial("unix", strings.TrimPrefix(host, "unix://"))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	getenv := func(name string) string {
		if name == "DOCKER_HOST" {
			return host
		}
		return ""
	}
	r := container.New(container.Options{Owner: owner, Streams: files, Getenv: getenv})
	t.Cleanup(func() { _ = r.Close() })
	return r, func() {
		if err := unix.Mount("", root, "", unix.MS_REMOUNT, "size=200m"); err != nil {
			t.Fatal(err)
		}
	}
}
