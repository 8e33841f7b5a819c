package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/restore"
	"github.com/locald/locald/runtime"
)

// leftoverGrace is what is left behind has between asking and forcing, where
// its own setting is not known.
const leftoverGrace = 10 * time.Second

// load makes the projects that are on record.
func (d *Daemon) load() []state.Project {
	records, problems := d.store.Projects()
	d.complain(problems)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range records {
		p, problems := project.Open(d.machine, r)
		d.complain(problems)
		d.adopt(r.Dir, p)
	}
	return records
}

// restore asks for what was wanted, ends what an earlier daemon left and proves
// that it is gone. What was asked for starts as soon as nothing of its kind is
// left: see project.Machine.Swept.
func (d *Daemon) restore(ctx context.Context, records []state.Project) {
	began := time.Now()
	services := d.recorded(records)
	started := d.revive(ctx, restore.Decide(services, nil))
	close(d.applied)
	var ended atomic.Int64
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		defer close(d.swept[runtime.Process])
		if err := keeper.Wait(ctx, d.options.Places.Dir); err != nil {
			d.log.Error("the keeper of an earlier daemon is still there", zap.Error(err))
		}
		ended.Add(d.sweep(ctx, d.process, services))
	})
	sweeping.Go(func() {
		defer close(d.swept[runtime.Container])
		for _, name := range d.usedEngines() {
			ended.Add(d.sweepEngine(ctx, name, services))
		}
	})
	sweeping.Wait()
	if ended.Load()+int64(started) > 0 {
		d.log.Info("restored", zap.Int64("ended", ended.Load()), zap.Int("started", started), zap.Duration("took", time.Since(began)))
	}
}

func (d *Daemon) sweepEngine(ctx context.Context, name string, services []restore.Service) int64 {
	rt := d.engine(name)
	ended := d.sweep(ctx, rt, services)
	if err := rt.Sweep(ctx); err != nil && !errors.Is(err, runtime.ErrUnavailable) {
		d.log.Warn("sweep of the engine", zap.String("engine", name), zap.Error(err))
	}
	return ended
}

// recorded is what restore decides from.
func (d *Daemon) recorded(records []state.Project) []restore.Service {
	var all []restore.Service
	for _, p := range d.known() {
		r := p.Record()
		if !slices.ContainsFunc(records, func(s state.Project) bool { return s.ID == r.ID }) {
			continue
		}
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
// usual one when it is there anyway, since labels outlive records.
func (d *Daemon) usedEngines() []string {
	names := []string{"auto"}
	for _, p := range d.known() {
		if conf, err := p.Config(); err == nil && conf.Engine != "" && !slices.Contains(names, conf.Engine) {
			names = append(names, conf.Engine)
		}
	}
	return names
}

// sweep ends everything of ours that a runtime still finds.
func (d *Daemon) sweep(ctx context.Context, rt runtime.Runtime, services []restore.Service) int64 {
	found, err := rt.List(ctx, d.machine.Owner)
	if err != nil {
		if !errors.Is(err, runtime.ErrUnavailable) {
			d.log.Warn("sweep", zap.String("runtime", string(rt.Kind())), zap.Error(err))
		}
		return 0
	}
	var ending sync.WaitGroup
	for _, decision := range restore.Decide(services, found) {
		if decision.Op != restore.End {
			continue
		}
		ending.Go(func() {
			if err := end(ctx, rt, decision.Ref); err != nil {
				d.log.Error("left behind", zap.String("run", string(decision.Ref.Run)), zap.Error(err))
				return
			}
			d.log.Info(decision.String())
		})
	}
	ending.Wait()
	return int64(len(found))
}

func end(ctx context.Context, rt runtime.Runtime, ref runtime.Ref) error {
	in, err := rt.Attach(ctx, ref)
	if errors.Is(err, runtime.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := in.Stop(ctx, leftoverGrace); err != nil {
		return err
	}
	return in.Remove(ctx)
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
		note := func(text string) { d.log.Warn("restore", zap.String("project", id), zap.String("note", text)) }
		if err := byID[id].Restore(ctx, note); err != nil {
			d.log.Error("restore", zap.String("project", id), zap.Error(err))
		}
	}
	return started
}
