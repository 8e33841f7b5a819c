package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/locald/locald/internal/oci"
)

// runcEngine is "runc run" with a bundle whose root is unpacked, read-only and
// shared: the floor of what engines can do that have it do the work. It has no
// images, and no ports: a network of its own reaches nothing.
type runcEngine struct {
	dir  string
	runs int
}

func newRunc(ctx context.Context, dir string, images *served) (contestant, error) {
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, err
	}
	store, err := oci.Open(filepath.Join(dir, "images"), oci.Options{})
	if err != nil {
		return nil, err
	}
	image, err := store.Pull(ctx, images.shell, oci.PullOptions{})
	if err != nil {
		return nil, err
	}
	e := &runcEngine{dir: dir}
	return e, errors.Join(e.bundle(ctx, own, image.Layers[0]), e.bundle(ctx, host, image.Layers[0]))
}

// bundle writes what runc suggests, with our program in our root.
func (e *runcEngine) bundle(ctx context.Context, network network, root string) error {
	dir := filepath.Join(e.dir, string(network))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := execute(ctx, "runc", "spec", "--bundle", dir); err != nil {
		return err
	}
	name := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var spec struct {
		Process map[string]any   `json:"process"`
		Root    map[string]any   `json:"root"`
		Mounts  []map[string]any `json:"mounts"`
		Linux   map[string]any   `json:"linux"`
		Version string           `json:"ociVersion"`
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	spec.Process["args"], spec.Process["terminal"] = program, false
	spec.Root["path"] = root
	namespaces := []map[string]string{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	if network == own {
		namespaces = append(namespaces, map[string]string{"type": "network"})
	}
	spec.Linux["namespaces"] = namespaces
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o600)
}

func (e *runcEngine) name() string { return "runc" }

func (e *runcEngine) close(context.Context) error { return nil }

func (e *runcEngine) start(_ context.Context, network network) (container, error) {
	e.runs++
	c := &runcContainer{e: e, id: fmt.Sprintf("benchengines-%d-%d", os.Getpid(), e.runs)}
	var err error
	c.running, err = inForeground(exec.Command("runc", e.runc("run", "--bundle", filepath.Join(e.dir, string(network)), c.id)...))
	return c, err
}

// runc keeps its state where nobody else's containers are.
func (e *runcEngine) runc(args ...string) []string {
	return append([]string{"--root", filepath.Join(e.dir, "state")}, args...)
}

type runcContainer struct {
	e       *runcEngine
	id      string
	running *foreground
}

func (c *runcContainer) stop(ctx context.Context) error {
	return errors.Join(execute(ctx, "runc", c.e.runc("kill", c.id, "TERM")...), c.running.wait())
}

// remove has nothing left to do: "runc run" deletes what has ended.
func (c *runcContainer) remove(context.Context) error { return nil }
