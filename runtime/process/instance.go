package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/runtime"
)

// instance is a run that this runtime started.
type instance struct {
	ref     runtime.Ref
	spec    runtime.Spec
	began   time.Time // it was not there before
	runtime *Runtime
	tenure  *tenure
	child   *keeper.Child

	mu    sync.Mutex
	execs map[*keeper.Child]bool

	looking sync.Mutex
	looked  look
}

func (in *instance) Ref() runtime.Ref { return in.ref }

func (in *instance) Info() runtime.Info {
	return runtime.Info{PID: in.child.PID(), Engine: "process"}
}

// Wait also ends when the keeper was killed and what it left has been ended.
func (in *instance) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-in.child.Done():
		return exitOf(in.child.Exit()), nil
	case <-in.tenure.swept:
		return in.waitLost(ctx)
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

func (in *instance) waitLost(ctx context.Context) (runtime.Exit, error) {
	if over(in.child.Done()) { // its end was told before the keeper's
		return exitOf(in.child.Exit()), nil
	}
	if in.tenure.left {
		if err := keeper.Gone(ctx, in.tenure.dir, in.child.Mark()); err != nil {
			return runtime.Exit{}, err
		}
	}
	return runtime.Exit{At: in.tenure.at, Reason: "the keeper was killed"}, nil
}

func exitOf(e keeper.Exit) runtime.Exit {
	exit := runtime.Exit{Known: true, Code: e.Code, Signal: e.Signal, At: e.At}
	switch {
	case e.Forced:
		exit.Reason = "it did not end when asked"
	case e.Memory == "yes":
		exit.Reason = "killed by the kernel for memory"
	case e.Memory == "part":
		exit.Reason = "the kernel killed one of its processes for memory"
	case e.Memory != "":
		exit.Reason = "probably killed by the kernel for memory"
	case e.Left == 1:
		exit.Reason = "a process that it left behind was ended"
	case e.Left > 1:
		exit.Reason = fmt.Sprintf("%d processes that it left behind were ended", e.Left)
	}
	return exit
}

func (in *instance) Stop(ctx context.Context, grace time.Duration) error {
	in.mu.Lock()
	execs := make([]*keeper.Child, 0, len(in.execs))
	for c := range in.execs {
		execs = append(execs, c)
	}
	in.mu.Unlock()
	var stops sync.WaitGroup
	errs := make([]error, len(execs))
	for i, c := range execs {
		stops.Go(func() { errs[i] = c.Stop(ctx, grace) })
	}
	err := in.child.Stop(ctx, grace)
	stops.Wait()
	err = errors.Join(append(errs, err)...)
	if errors.Is(err, keeper.ErrLost) {
		return in.stopLost(ctx, grace)
	}
	return survivors(err)
}

func (in *instance) stopLost(ctx context.Context, grace time.Duration) error {
	select {
	case <-in.tenure.swept:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !in.tenure.left {
		return nil
	}
	return survivors(in.tenure.clear(ctx, grace))
}

func (in *instance) Remove(context.Context) error {
	in.runtime.mu.Lock()
	defer in.runtime.mu.Unlock()
	delete(in.runtime.live, in.ref)
	return nil
}

// outputLimit is how much of an Exec's output is kept.
const outputLimit = 64 << 10

// Exec runs a command with the process's environment and directory. It is
// contained and ended as the service itself is; it ends with the instance.
func (in *instance) Exec(ctx context.Context, command []string) (runtime.Exit, []byte, error) {
	if over(in.child.Done()) || over(in.tenure.swept) {
		return runtime.Exit{}, nil, runtime.ErrGone
	}
	read, write, err := os.Pipe()
	if err != nil {
		return runtime.Exit{}, nil, err
	}
	defer read.Close()
	child, err := in.tenure.keeper.Run(ctx, keeper.Run{
		ID: string(in.ref.Run) + "+exec", Number: in.spec.Run, Argv: command, Dir: in.spec.Dir, Env: in.spec.Env,
		Stdout: write, Stderr: write, Grace: in.spec.Grace, Unprivileged: in.spec.Unprivileged,
	})
	_ = write.Close()
	if err != nil {
		return runtime.Exit{}, nil, fault(err)
	}
	in.mu.Lock()
	in.execs[child] = true
	in.mu.Unlock()
	defer func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		delete(in.execs, child)
	}()
	output := make(chan []byte, 1)
	go func() {
		kept, _ := io.ReadAll(io.LimitReader(read, outputLimit))
		_, _ = io.Copy(io.Discard, read)
		output <- kept
	}()
	select {
	case <-child.Done():
		return exitOf(child.Exit()), <-output, nil
	case <-in.child.Done():
		err = runtime.ErrGone
	case <-in.tenure.swept:
		return runtime.Exit{}, nil, runtime.ErrGone
	case <-ctx.Done():
		err = ctx.Err()
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return runtime.Exit{}, nil, errors.Join(err, survivors(child.Stop(late, 0)))
}

// leftover is what an earlier daemon left of a run.
type leftover struct {
	ref  runtime.Ref
	mark keeper.Mark
	dir  string // where keepers keep their records

	mu   sync.Mutex
	exit runtime.Exit // once it is known to have ended
}

func (l *leftover) Ref() runtime.Ref { return l.ref }

func (l *leftover) Info() runtime.Info { return runtime.Info{Engine: "process"} }

func (l *leftover) Wait(ctx context.Context) (runtime.Exit, error) {
	if err := keeper.Gone(ctx, l.dir, l.mark); err != nil {
		return runtime.Exit{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.exit.At.IsZero() {
		l.exit.At = time.Now()
	}
	return l.exit, nil
}

func (l *leftover) Stop(ctx context.Context, grace time.Duration) error {
	return survivors(keeper.End(ctx, l.dir, []keeper.Mark{l.mark}, grace))
}

func (l *leftover) Remove(context.Context) error { return nil }

// Owns reports whether the process carries the run's mark.
func (l *leftover) Owns(pid int) bool { return l.mark.Holds(pid) }
