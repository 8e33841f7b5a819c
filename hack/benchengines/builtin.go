package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/builtin"
	"github.com/locald/locald/runtime/process"
)

// builtinEngine is driven as the daemon drives it, and its output is read in the
// log store, as "locald logs" does. The keeper is that of the program that was
// built, and so is the maker of containers, which both carry.
type builtinEngine struct {
	process *process.Runtime
	runtime *builtin.Runtime
	dir     string
	image   string
	runs    int
}

const owner = "benchengines"

func (s settings) builtin(ctx context.Context, dir string, images *served) (contestant, error) {
	program, err := filepath.Abs(s.locald)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(program); err != nil {
		return nil, err
	}
	e := &builtinEngine{dir: dir, image: images.shell}
	e.process = process.New(keeper.Options{Dir: dir, Owner: owner, Log: os.Stderr, Command: []string{program, "keeper"}})
	e.runtime = builtin.New(builtin.Options{Dir: dir, Process: e.process})
	return e, e.runtime.Prepare(ctx, e.spec(own, 0), func(runtime.Progress) {})
}

func (e *builtinEngine) name() string { return "builtin" }

func (e *builtinEngine) close(context.Context) error { return e.process.Close() }

func (e *builtinEngine) spec(network network, port int) runtime.Spec {
	spec := runtime.Spec{
		Project: runtime.Project{ID: "bench", Name: "bench", Dir: "/"}, Service: "sh", Run: e.runs, Owner: owner,
		Command: program, Log: filepath.Join(e.dir, "log"), Grace: 10 * time.Second,
		Image: &runtime.Image{Name: e.image, Pull: runtime.PullMissing, Host: network == host},
	}
	if port != 0 && network == own {
		spec.Image.Ports = []runtime.Port{{Host: port, Container: containerPort}}
	}
	return spec
}

func (e *builtinEngine) start(ctx context.Context, network network) (container, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	e.runs++
	spec := e.spec(network, port)
	reading, enough := context.WithCancel(ctx)
	defer enough()
	first := errors.New("first line")
	came := make(chan error, 1)
	go func() {
		err := logs.OpenReader(spec.Log).Follow(reading, logs.Query{FromRun: spec.Run, Output: true}, func([]logs.Line) error { return first })
		came <- err
	}()
	if err := e.runtime.Prepare(ctx, spec, func(runtime.Progress) {}); err != nil {
		return nil, err
	}
	in, err := e.runtime.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := <-came; !errors.Is(err, first) {
		return nil, fmt.Errorf("no output: %w", errors.Join(err, ctx.Err()))
	}
	return builtinContainer{in}, nil
}

type builtinContainer struct{ runtime.Instance }

func (c builtinContainer) stop(ctx context.Context) error { return c.Stop(ctx, 10*time.Second) }

func (c builtinContainer) remove(ctx context.Context) error { return c.Remove(ctx) }

func (e *builtinEngine) pull(ctx context.Context, image string) error {
	spec := e.spec(own, 0)
	spec.Image.Name = image
	return e.runtime.Prepare(ctx, spec, func(runtime.Progress) {})
}

func (e *builtinEngine) forget(ctx context.Context, image string) error {
	store, err := e.runtime.Store()
	if err != nil {
		return err
	}
	_, err = store.Remove(ctx, image)
	return err
}
