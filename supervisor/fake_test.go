package supervisor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/locald/locald/runtime"
)

// fake is a runtime whose instances live in the test: they end when it says
// so, or when they are stopped and willing.
type fake struct {
	takes    time.Duration // how long a Start takes
	stubborn bool          // instances only end when grace is over
	immortal bool          // instances cannot be ended at all
	errs     []error       // of the next Starts, in order

	mu    sync.Mutex
	lives []*life
}

type life struct {
	of    *fake
	ref   runtime.Ref
	once  sync.Once
	exit  runtime.Exit
	ended chan struct{}
}

func (f *fake) Kind() runtime.Kind { return runtime.Process }

func (f *fake) Prepare(context.Context, runtime.Spec, func(runtime.Progress)) error { return nil }

func (f *fake) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		if err != nil {
			return nil, err
		}
	}
	l := &life{of: f, ref: runtime.Ref{Kind: runtime.Process, Run: spec.ID(), ID: fmt.Sprint(len(f.lives))}, ended: make(chan struct{})}
	f.lives = append(f.lives, l)
	return l, nil
}

func (f *fake) List(context.Context, runtime.Owner) ([]runtime.Ref, error) { return nil, nil }

func (f *fake) Attach(context.Context, runtime.Ref) (runtime.Instance, error) {
	return nil, runtime.ErrGone
}

func (f *fake) starts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lives)
}

func (f *fake) last() *life {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lives[len(f.lives)-1]
}

func (l *life) end(code int, signal string) {
	l.once.Do(func() {
		l.exit = runtime.Exit{Known: true, Code: code, Signal: signal, At: time.Now()}
		close(l.ended)
	})
}

func (l *life) Ref() runtime.Ref   { return l.ref }
func (l *life) Info() runtime.Info { return runtime.Info{PID: 42, Engine: "process"} }

func (l *life) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-l.ended:
		return l.exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

func (l *life) Stop(ctx context.Context, grace time.Duration) error {
	switch {
	case l.of.immortal:
		return &runtime.Survivors{Left: []runtime.Survivor{{PID: 42, Reason: "uninterruptible"}}}
	case !l.of.stubborn || grace == 0:
		l.end(143, "SIGTERM")
		return nil
	}
	select {
	case <-time.After(grace):
		l.end(137, "SIGKILL")
	case <-l.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (l *life) Remove(context.Context) error { return nil }
