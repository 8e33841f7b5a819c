package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// containerdEngine is a containerd of our own, driven by ctr, the program that
// comes with it: each time includes ctr's own start. "ctr run" creates, starts,
// hands on the output and deletes what has ended. It has no ports: a network of
// its own reaches nothing.
type containerdEngine struct {
	*service
	socket, image string
	runs          int
}

const containerdConfig = `version = 2
root = %[1]q
state = %[2]q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = %[3]q
`

func newContainerd(ctx context.Context, dir string, images *served) (contestant, error) {
	program, err1 := exec.LookPath("containerd")
	_, err2 := exec.LookPath("ctr")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	e := &containerdEngine{socket: filepath.Join(dir, "containerd.sock"), image: images.shell}
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf(containerdConfig, filepath.Join(dir, "root"), filepath.Join(dir, "state"), e.socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var err error
	if e.service, err = serviceOf(ctx, exec.Command(program, "--config", config), e.socket); err != nil {
		return nil, err
	}
	if err := e.pull(ctx, e.image); err != nil {
		return nil, errors.Join(err, e.end())
	}
	return e, nil
}

func (e *containerdEngine) name() string { return "containerd" }

func (e *containerdEngine) close(context.Context) error { return e.end() }

func (e *containerdEngine) ctr(args ...string) []string {
	return append([]string{"--address", e.socket, "--namespace", "bench"}, args...)
}

func (e *containerdEngine) start(_ context.Context, network network) (container, error) {
	e.runs++
	c := &containerdContainer{e: e, id: fmt.Sprintf("bench-%d", e.runs)}
	args := []string{"run", "--rm"}
	if network == host {
		args = append(args, "--net-host")
	}
	args = append(args, e.image, c.id)
	var err error
	c.running, err = inForeground(exec.Command("ctr", e.ctr(append(args, program...)...)...))
	return c, err
}

type containerdContainer struct {
	e       *containerdEngine
	id      string
	running *foreground
}

func (c *containerdContainer) stop(ctx context.Context) error {
	return errors.Join(execute(ctx, "ctr", c.e.ctr("task", "kill", "--signal", "SIGTERM", c.id)...), c.running.wait())
}

// remove has nothing left to do.
func (c *containerdContainer) remove(context.Context) error { return nil }

func (e *containerdEngine) pull(ctx context.Context, image string) error {
	return execute(ctx, "ctr", e.ctr("images", "pull", "--plain-http", image)...)
}

func (e *containerdEngine) forget(ctx context.Context, image string) error {
	return execute(ctx, "ctr", e.ctr("images", "remove", "--sync", image)...)
}
