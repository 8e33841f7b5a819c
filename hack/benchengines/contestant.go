package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"syscall"
)

// network is what a container sees of the world.
type network string

const (
	own  network = "own"  // its own, with a published port where there is a way
	host network = "host" // the host's
)

var networks = []network{own, host}

// contestant makes containers of an image whose program says a line and ends at
// SIGTERM.
type contestant interface {
	name() string
	// start returns when the first byte of output has come.
	start(ctx context.Context, network network) (container, error)
	// close ends and removes what the contestant needed.
	close(ctx context.Context) error
}

type container interface {
	stop(ctx context.Context) error
	remove(ctx context.Context) error
}

// puller is a contestant that pulls images itself.
type puller interface {
	contestant
	pull(ctx context.Context, image string) error
	forget(ctx context.Context, image string) error
}

// program is what runs in each container: a shell begins sooner than anything
// else that could say something.
var program = []string{"sh", "-c", "trap 'exit 0' TERM; echo up; sleep 1000000 & wait"}

// containerPort is what is published; nothing has to listen on it.
const containerPort = 8080

// freePort is one that nobody has at this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// foreground is a command that stays as long as its container.
type foreground struct {
	cmd *exec.Cmd
	out io.ReadCloser
}

// inForeground returns when the command has written its first byte.
func inForeground(cmd *exec.Cmd) (*foreground, error) {
	var said tail
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for us, who stop it
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var first [1]byte
	if _, err := io.ReadFull(out, first[:]); err != nil {
		return nil, fmt.Errorf("%v: no output: %w: %s", cmd.Args, cmd.Wait(), said.text)
	}
	return &foreground{cmd, out}, nil
}

// wait returns when the command has ended, with whatever status the container
// gave it.
func (f *foreground) wait() error {
	if _, err := io.Copy(io.Discard, f.out); err != nil {
		return err
	}
	_ = f.cmd.Wait()
	return nil
}

// tail keeps the last of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-2000):]
	return len(p), nil
}

// execute runs a command to its end, and tells what it said if it fails.
func execute(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}
