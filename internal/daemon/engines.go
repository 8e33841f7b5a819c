package daemon

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/builtin"
	"github.com/locald/locald/runtime/container"
	"github.com/locald/locald/runtime/containerd"
)

// engine is an engine as the daemon holds it.
type engine interface {
	project.Containers
	// Sweep removes what the owner still has there and nothing uses.
	Sweep(ctx context.Context) error
}

// The engines by the names that projects write. "auto" is whichever of the
// engines with Docker's API answers first.
const (
	engineAuto   = project.AutoEngine
	engineDocker = "docker"
	enginePodman = "podman"
)

// engine is the runtime of an engine, by its name.
func (d *Daemon) engine(name string) engine {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.engines[name]
	if e == nil {
		e = d.newEngine(name)
		d.engines[name] = e
	}
	return e
}

// newEngine makes the runtime of an engine. It asks nobody.
func (d *Daemon) newEngine(name string) engine {
	switch name {
	case builtin.Name:
		return builtin.New(builtin.Options{Dir: d.options.Places.Dir, Process: d.process, Users: os.Getenv(builtin.UsersVariable)})
	case containerd.Name:
		var c *containerd.Runtime
		c = containerd.New(containerd.Options{
			Owner: d.machine.Owner, Dir: d.options.Places.Dir, Process: d.process, Away: func(err error) { d.away(c, err) },
		})
		return c
	}
	var c *container.Runtime
	c = container.New(container.Options{
		Owner: d.machine.Owner, Engine: name, Streams: d.streams, Flush: d.flush, Note: d.note,
		Away:  func(err error) { d.away(c, err) },
		Keeps: func(run runtime.RunID) bool { return d.keeps(runtime.Ref{Run: run}) },
	})
	return c
}

// opened is every engine that somebody has had need of.
func (d *Daemon) opened() []engine {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []engine
	seen := map[engine]bool{}
	for _, e := range d.engines {
		if !seen[e] {
			seen[e] = true
			all = append(all, e)
		}
	}
	return all
}

// sweepEngines removes what a daemon that was killed had asked an engine for, and
// what came after this one had looked.
func (d *Daemon) sweepEngines(ctx context.Context) {
	if d.keepsAny() {
		return // it could not be stopped
	}
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	var sweeping sync.WaitGroup
	for _, e := range d.opened() {
		if e.Engine() == "" {
			continue // none was needed
		}
		sweeping.Go(func() {
			if err := e.Sweep(ctx); err != nil && !errors.Is(err, runtime.ErrUnavailable) {
				d.log.Warn("engine", zap.Error(err))
			}
		})
	}
	sweeping.Wait()
}

// seenEngine is an engine as choose sees it.
type seenEngine struct {
	name  string
	why   error // why it cannot be had; nil when it can
	named bool  // the user named it, by a variable or a docker context
}

// choose is the engine for a project that names none: the first that can be
// had, in the order of seen. One that the user named stands for all others:
// services must not end up in another because the chosen one is down. The name
// is "auto" when none can be had.
func choose(seen []seenEngine) project.Engine {
	var missing []string
	for _, e := range seen {
		switch {
		case e.why == nil:
			return project.Engine{Name: e.name, Why: strings.Join(missing, "; ")}
		case e.named:
			return project.Engine{Name: engineAuto}
		}
		missing = append(missing, e.why.Error())
	}
	return project.Engine{Name: engineAuto}
}

// chooseEngine asks, in the order of choose, until one can be had.
func (d *Daemon) chooseEngine(ctx context.Context) project.Engine {
	usual := d.engine(engineAuto)
	absent := usual.Ping(ctx)
	if absent == nil {
		name := usual.Engine()
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.engines[name] == nil {
			d.engines[name] = usual // one connection to it is enough
		}
		return project.Engine{Name: name}
	}
	return choose([]seenEngine{
		{name: engineDocker, why: absent, named: container.Named(os.Getenv)},
		{name: builtin.Name, why: d.engine(builtin.Name).Ping(ctx)},
		{name: containerd.Name, why: containerd.Look(ctx, os.Getenv).Err},
	})
}
