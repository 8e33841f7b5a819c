package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/restore"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// clearance is whether anything that an earlier daemon left is left in one
// runtime. Nothing starts there, and nothing is said to be down, before it is
// given.
type clearance struct {
	turn  chan struct{} // held by whoever tries
	given bool          // for good; guarded by turn
}

func newClearance() *clearance { return &clearance{turn: make(chan struct{}, 1)} }

// clear returns nil once nothing of an earlier daemon is left in a runtime. It
// ends what it finds, and the error says what could not be ended, or that
// nobody could look. The next call tries again.
func (d *Daemon) clear(ctx context.Context, rt runtime.Runtime) error {
	c := d.clearance(rt)
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.given {
		return nil
	}
	if e, ok := rt.(*engines.Engine); ok && runtime.Stands(e.Name()) {
		if err := d.clear(ctx, d.process); err != nil {
			return err
		}
	}
	if err := d.sweep(ctx, rt); err != nil {
		return err
	}
	c.given = true
	return nil
}

func (d *Daemon) clearance(rt runtime.Runtime) *clearance {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.clearances[rt]
	if c == nil {
		c = newClearance()
		d.clearances[rt] = c
	}
	return c
}

// sweep ends everything of ours that a runtime still finds, and proves that it
// is gone.
func (d *Daemon) sweep(ctx context.Context, rt runtime.Runtime) error {
	if rt.Kind() == runtime.Process {
		select {
		case <-d.alone: // the keeper of an earlier daemon ends its runs itself, gracefully
		case <-ctx.Done():
			return ctx.Err()
		}
		if d.first {
			return nil
		}
	} else if err := d.store.Settle(); err != nil {
		return err
	}
	found, err := rt.List(ctx, d.machine.Owner)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, d.kept())
	decisions := restore.Decide(d.recorded(), found)
	errs := make([]error, len(decisions))
	var ending sync.WaitGroup
	for i, decision := range decisions {
		if decision.Op != restore.End {
			continue
		}
		ending.Go(func() {
			if errs[i] = end(d.life, rt, decision.Ref); errs[i] != nil {
				errs[i] = fmt.Errorf("left behind by an earlier run, %s: %w", decision.Ref.Run, errs[i])
				return
			}
			d.log.Info(decision.String())
		})
	}
	ending.Wait()
	err = errors.Join(errs...)
	if rest, ok := rt.(interface{ Sweep(context.Context) error }); ok && err == nil && !d.keepsAny() {
		err = rest.Sweep(ctx)
	}
	if err != nil && !errors.Is(err, runtime.ErrUnavailable) {
		d.log.Error("left behind", "error", err)
		return &runtime.Fault{Code: "stop_failed", Hint: "locald doctor", Err: err}
	}
	return err
}

// kept tells instances that are of a run of this daemon: an engine may be known
// by two names.
func (d *Daemon) kept() func(runtime.Ref) bool {
	views := map[string]map[string]supervisor.Status{}
	for _, p := range d.known() {
		views[p.ID()] = p.View().Status
	}
	return func(ref runtime.Ref) bool {
		id, name, run, ok := ref.Run.Split()
		s, known := views[id][name]
		return ok && known && s.Run == run && s.Phase.Live()
	}
}

func (d *Daemon) keeps(ref runtime.Ref) bool { return d.kept()(ref) }

// keepsAny reports whether this daemon has started a container.
func (d *Daemon) keepsAny() bool {
	for _, p := range d.known() {
		for _, s := range p.View().Status {
			if s.Info.ContainerID != "" && s.Phase.Live() {
				return true
			}
		}
	}
	return false
}

// left is what of an earlier daemon may still be there of services that are to
// be down.
func (d *Daemon) left(ctx context.Context, p *project.Project, names []string) []string {
	var failed []string
	for _, rt := range p.Runtimes(names) {
		if err := d.clear(ctx, rt); err != nil {
			failed = append(failed, err.Error())
		}
	}
	return failed
}

// end ends one instance that an earlier daemon left. It is not broken off when
// whoever asked has gone: half ended, nobody would remove it.
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

// holdKeeper starts a keeper before somebody needs one: the first service does not
// wait for it.
func (d *Daemon) holdKeeper(ctx context.Context) {
	select {
	case <-d.alone:
		_, _ = d.process.Keeper(ctx) // whoever needs it is told
	case <-ctx.Done():
	}
}

// awaitKeeper waits until the keeper of an earlier daemon has ended what it
// held.
func (d *Daemon) awaitKeeper(ctx context.Context) {
	defer close(d.alone)
	if err := keeper.Wait(ctx, d.options.Places.Dir); err != nil && ctx.Err() == nil {
		d.log.Error("the keeper of an earlier daemon is still there", "error", err)
	}
}
