package daemon

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"

	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/runtime"
)

// engine is the runtime of an engine, by its name. Nobody is asked yet.
func (d *Daemon) engine(name string) runtime.Engine {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.engines[name]
	if e == nil {
		e = d.speaker.Engine(name)
		d.engines[name] = e
	}
	return e
}

// newSpeaker is what speaks to engines, for this daemon.
func (d *Daemon) newSpeaker() *engines.Process {
	return engines.New(engines.Options{
		Dir: d.options.Places.Dir, Owner: d.machine.Owner, Log: os.Stderr, Process: d.process,
		Streams: d.streams, Flush: d.flush, Note: d.note,
		Away:  func(name string, why error) { d.away(d.engine(name), why) },
		Keeps: func(run runtime.RunID) bool { return d.keeps(runtime.Ref{Run: run}) },
	})
}

// opened is every engine that somebody has had need of.
func (d *Daemon) opened() []runtime.Engine {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []runtime.Engine
	seen := map[runtime.Engine]bool{}
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
				d.log.Warn("engine", "error", err)
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
			return project.Engine{Name: runtime.EngineAuto}
		}
		missing = append(missing, e.why.Error())
	}
	return project.Engine{Name: runtime.EngineAuto}
}

// chooseEngine asks, in the order of choose, until one can be had.
func (d *Daemon) chooseEngine(ctx context.Context) project.Engine {
	usual := d.engine(runtime.EngineAuto)
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
		{name: runtime.EngineDocker, why: absent, named: d.speaker.Named(ctx)},
		{name: runtime.EngineBuiltin, why: d.engine(runtime.EngineBuiltin).Ping(ctx)},
		{name: runtime.EngineContainerd, why: d.speaker.Containerd(ctx).Err},
	})
}
