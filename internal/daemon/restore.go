package daemon

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/restore"
	"github.com/locald/locald/runtime"
)

// leftoverGrace is what is left behind has between asking and forcing, where
// its own setting is not known.
const leftoverGrace = 10 * time.Second

// load makes the projects that are on record.
func (d *Daemon) load() {
	records, problems := d.store.Projects()
	d.complain(problems)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range records {
		d.dropSockets(r)
		p, problems := project.Open(d.machine, r)
		d.complain(problems)
		d.admit(r.Dir, p)
	}
}

// dropSockets removes the notification sockets that a daemon has left that was
// killed: only those of services that start again are made anew.
func (d *Daemon) dropSockets(r state.Project) {
	paths := []string{d.store.NotifyNobody()}
	for name := range r.Wants {
		paths = append(paths, d.store.Notify(r.ID, name))
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&fs.ModeSocket == 0 || !own(info) {
			continue
		}
		if err := os.Remove(path); err != nil {
			d.log.Warn("notification socket", "error", err)
		}
	}
}

// restore asks for what was wanted, and ends what an earlier daemon left, also
// where nobody asks for it. What was asked for starts as soon as its runtime is
// clear.
func (d *Daemon) restore(ctx context.Context) {
	defer d.hurry()()
	began := time.Now()
	started := d.revive(ctx, restore.Decide(d.recorded(), nil))
	close(d.applied)
	var clearing sync.WaitGroup
	clearing.Go(func() { _ = d.clear(ctx, d.process) }) // whoever needs it is told
	for _, name := range d.usedEngines() {
		clearing.Go(func() { d.clearEngine(ctx, name) })
	}
	clearing.Wait()
	if started > 0 {
		d.log.Info("restored", "started", started, "took", time.Since(began).String())
	}
}

// engineRetry is how long after one look for an engine that does not answer the
// next one comes, at most.
const engineRetry = 5 * time.Second

// clearEngine ends what an earlier daemon left in an engine. One that may hold
// something of ours is waited for, since nobody else may ever ask for it.
func (d *Daemon) clearEngine(ctx context.Context, name string) {
	for pause := engineRetry / 16; ; pause = min(2*pause, engineRetry) {
		err := d.clear(ctx, d.engine(name)) // whoever needs it is told
		if !errors.Is(err, runtime.ErrUnavailable) || !d.mayHold(name) {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// mayHold reports whether a project on record may have used an engine.
func (d *Daemon) mayHold(engine string) bool {
	return slices.ContainsFunc(d.known(), func(p *project.Project) bool { return slices.Contains(p.Title().Engines, engine) })
}

// recorded is what restore decides from.
func (d *Daemon) recorded() []restore.Service {
	var all []restore.Service
	for _, p := range d.known() {
		r := p.Record()
		for name, wanted := range r.Wants {
			known := p.History(name)
			s := restore.Service{Project: r.ID, Name: name, Wanted: wanted, Done: known.Done()}
			if n := len(known.Runs); n > 0 {
				s.Run, s.Open = known.Runs[n-1].Run, known.Runs[n-1].End.IsZero()
			}
			all = append(all, s)
		}
	}
	return all
}

// usedEngines is every engine that a project on record may have used, and the
// usual one where that is none of them and there once was something in one, since
// labels outlive records.
func (d *Daemon) usedEngines() []string {
	var names []string
	for _, p := range d.known() {
		for _, name := range p.Title().Engines {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	usual := slices.ContainsFunc(names, func(n string) bool { return !runtime.Stands(n) })
	if !usual && engines.Used(d.options.Places.Dir) {
		names = append(names, runtime.EngineAuto)
	}
	return names
}

// revive closes the records of runs whose end nobody saw, and starts what was
// wanted.
func (d *Daemon) revive(ctx context.Context, decisions []restore.Decision) int {
	started := 0
	byID := map[string]*project.Project{}
	for _, p := range d.known() {
		byID[p.ID()] = p
	}
	wanted := map[string]bool{}
	for _, decision := range decisions {
		p := byID[decision.Project]
		switch decision.Op {
		case restore.Forget:
			p.Lost(decision.Service, decision.Run, decision.Why)
		case restore.Start, restore.Keep:
			wanted[decision.Project] = true
			if decision.Op == restore.Start {
				started++
			}
		case restore.End: // done before
		}
	}
	for id := range wanted {
		note := func(text string) { d.log.Warn("restore", "project", id, "note", text) }
		if err := byID[id].Restore(ctx, note); err != nil {
			d.log.Error("restore", "project", id, "error", err)
		}
		rested := make(chan struct{})
		d.rested[id] = rested
		d.serving.Go(func() {
			defer close(rested)
			d.rest(ctx, byID[id])
		})
	}
	return started
}
