package postgres

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
)

// plain is a runtime of real processes, without a keeper: enough of the
// contract for one instance of a run at a time, which it insists on.
type plain struct {
	mu      sync.Mutex
	live    map[runtime.RunID]bool
	started [][]string
	environ [][]string
	out     *transcript
}

func newPlain(t *testing.T) *plain {
	p := &plain{live: map[runtime.RunID]bool{}, out: &transcript{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("output:\n%s", p.out)
		}
	})
	return p
}

func (p *plain) Kind() runtime.Kind { return runtime.Process }

func (p *plain) Prepare(context.Context, runtime.Spec, func(runtime.Progress)) error { return nil }

func (p *plain) List(context.Context, runtime.Owner) ([]runtime.Ref, error) { return nil, nil }

func (p *plain) Attach(context.Context, runtime.Ref) (runtime.Instance, error) {
	return nil, runtime.ErrGone
}

func (p *plain) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live[spec.ID()] {
		return nil, errors.New("the run has an instance already")
	}
	cmd := exec.Command(spec.Command[0], spec.Command[1:]...)
	cmd.Dir, cmd.Env = spec.Dir, spec.Env
	// Pipes, so that Wait sees the end of the last process that holds them.
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if spec.Unprivileged && os.Geteuid() == 0 {
		becomeOrdinary(cmd.SysProcAttr)
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.live[spec.ID()] = true
	p.started = append(p.started, spec.Command)
	p.environ = append(p.environ, spec.Env)
	i := &child{cmd: cmd, spec: spec, owner: p, done: make(chan struct{})}
	go i.reap()
	return i, nil
}

type child struct {
	cmd   *exec.Cmd
	spec  runtime.Spec
	owner *plain
	done  chan struct{}
	exit  runtime.Exit
}

func (c *child) reap() {
	_ = c.cmd.Wait()
	status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	c.exit = runtime.Exit{Known: true, Code: status.ExitStatus(), At: time.Now()}
	if status.Signaled() {
		c.exit.Code, c.exit.Signal = 128+int(status.Signal()), status.Signal().String()
	}
	close(c.done)
}

func (c *child) Ref() runtime.Ref   { return runtime.Ref{Kind: runtime.Process, Run: c.spec.ID()} }
func (c *child) Info() runtime.Info { return runtime.Info{PID: c.cmd.Process.Pid, Engine: "process"} }

func (c *child) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-c.done:
		return c.exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

func (c *child) Stop(ctx context.Context, grace time.Duration) error {
	signal := syscall.SIGTERM
	if c.spec.StopSignal == "SIGINT" {
		signal = syscall.SIGINT
	}
	_ = c.cmd.Process.Signal(signal)
	select {
	case <-c.done:
		return nil
	case <-time.After(grace):
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	_, err := c.Wait(ctx)
	return err
}

func (c *child) Remove(context.Context) error {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	delete(c.owner.live, c.spec.ID())
	return nil
}

// transcript is what instances wrote; await waits for a line of it.
type transcript struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
	return t.text.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

func (t *transcript) await(ctx context.Context, words string, times int) error {
	return t.until(ctx, func(text string) bool { return strings.Count(text, words) >= times })
}

// until returns when done is true; done is asked again when there is more text.
func (t *transcript) until(ctx context.Context, done func(text string) bool) error {
	for {
		t.mu.Lock()
		if t.changed == nil {
			t.changed = make(chan struct{})
		}
		changed, text := t.changed, t.text.String()
		t.mu.Unlock()
		if done(text) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
