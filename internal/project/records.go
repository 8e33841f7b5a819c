package project

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/supervisor"
)

// records is what is remembered of a project's services. Changes are written
// behind: nothing waits for them, and a disk that is full stops nobody.
type records struct {
	disk    *state.Records
	project string
	log     *slog.Logger
	wake    chan struct{}
	writing sync.Mutex // held while records are written, so that an older one never follows a newer one

	mu       sync.Mutex
	told     chan struct{} // closed and replaced when something of a run was kept
	services map[string]state.Service
	dirty    map[string]bool
	err      error // of the last write
}

func openRecords(m *Machine, project string) (*records, []error) {
	disk, problems := m.Store.Records(project)
	return &records{
		disk: disk, project: project, log: m.Log,
		wake: make(chan struct{}, 1), told: make(chan struct{}), services: disk.Services(), dirty: map[string]bool{},
	}, problems
}

// Changes are written once none has come for so long, or the first has waited
// for so long: what starts together is written once, and when it runs. A daemon
// that is killed meanwhile forgets them, which costs a line of history.
const (
	together = 20 * time.Millisecond
	longest  = 250 * time.Millisecond
)

// serve writes until ctx ends, and then what is left.
func (r *records) serve(ctx context.Context) {
	defer r.flush()
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		if !r.settle(ctx) {
			return
		}
		r.flush()
	}
}

// settle returns once changes are to be written, and false at the end of ctx.
func (r *records) settle(ctx context.Context) bool {
	latest := time.After(longest)
	for {
		select {
		case <-r.wake:
		case <-time.After(together):
			return true
		case <-latest:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

func (r *records) flush() {
	r.mu.Lock()
	changed := r.dirty
	r.dirty = map[string]bool{}
	r.mu.Unlock()
	if len(changed) > 0 {
		_ = r.write(slices.Collect(maps.Keys(changed))...) // told in the log
	}
}

// write writes records as they now are, and says in the log when that begins to
// fail.
func (r *records) write(names ...string) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	services := make([]state.Service, len(names))
	for i, name := range names {
		services[i] = r.get(name)
	}
	err := r.disk.Save(services...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && r.err == nil {
		r.log.Error("records are not written", "project", r.project, "error", err)
	}
	if r.err = err; err != nil {
		for _, name := range names {
			r.dirty[name] = true // with the next that changes
		}
	}
	return err
}

// all has every record written again.
func (r *records) all() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.services {
		r.dirty[name] = true
	}
}

// get is what is remembered of one service.
func (r *records) get(name string) state.Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of(name)
}

func (r *records) of(name string) state.Service {
	s, known := r.services[name]
	if !known {
		s.Name = name
	}
	return s
}

func (r *records) change(name string, f func(*state.Service)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.of(name)
	f(&s)
	r.services[name] = s
	r.dirty[name] = true
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *records) deaf(name string) bool { return r.get(name).Deaf }

func (r *records) setDeaf(name string, deaf bool) {
	if r.deaf(name) != deaf {
		r.change(name, func(s *state.Service) { s.Deaf = deaf })
	}
}

// kept says where the data of a managed Postgres is, when a container has it.
type kept struct {
	Volume bool
	Major  string
	Making bool   // it was never ready: what is in there may be half made
	Engine string // that has the volume
}

func (r *records) postgres(name string) kept {
	s := r.get(name)
	return kept{s.Volume, s.Major, s.Making, s.Engine}
}

func (r *records) setPostgres(name string, k kept) {
	if r.postgres(name) != k {
		r.change(name, func(s *state.Service) { s.Volume, s.Major, s.Making, s.Engine = k.Volume, k.Major, k.Making, k.Engine })
	}
}

// keepPostgres is setPostgres for what must be on disk before anything follows
// from it.
func (r *records) keepPostgres(name string, k kept) error {
	if r.postgres(name) == k {
		return nil
	}
	before := r.postgres(name)
	r.setPostgres(name, k)
	if err := r.write(name); err != nil {
		r.setPostgres(name, before)
		return err
	}
	return nil
}

// begin puts a run on record before anything of it exists, so that its number
// is never given again, whatever happens to the daemon.
func (r *records) begin(name string, run int) error {
	if err := r.disk.Begin(name, run); err != nil {
		return err
	}
	r.change(name, func(s *state.Service) { *s = s.With(state.Run{Run: run}) })
	return nil
}

// ran keeps the history of a service's runs.
func (r *records) ran(name string, task bool, run supervisor.Run) {
	kept := state.Run{Run: run.Number, Start: run.StartedAt, Ready: run.ReadyAt, End: run.EndedAt, Reason: run.Reason}
	if run.Exit != nil {
		kept.Signal = run.Exit.Signal
		if run.Exit.Known {
			kept.Code = &run.Exit.Code
		}
		if kept.Reason == "" {
			kept.Reason = run.Exit.String()
		}
	}
	r.change(name, func(known *state.Service) {
		known.Task = task
		*known = known.With(kept)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.told)
	r.told = make(chan struct{})
}

// awaitEnd returns once the end of a run is on disk.
func (r *records) awaitEnd(ctx context.Context, name string, run int) {
	for {
		r.mu.Lock()
		kept, told := r.of(name), r.told
		r.mu.Unlock()
		if slices.ContainsFunc(kept.Runs, func(k state.Run) bool { return k.Run == run && !k.End.IsZero() }) {
			_ = r.write(name) // told in the log
			return
		}
		select {
		case <-told:
		case <-ctx.Done():
			return
		}
	}
}

// failed keeps what a service's failures in a row have come to.
func (r *records) failed(now supervisor.Status) {
	streak := state.Streak{Fails: now.Fails, DelayMS: now.Delay.Milliseconds(), Reason: now.Reason}
	if now.Fails == 0 {
		streak = state.Streak{}
	}
	if now.Phase == supervisor.Backoff {
		streak.Until = now.EndedAt.Add(now.Delay).Round(time.Millisecond)
	}
	if r.get(now.Service).Streak != streak {
		r.change(now.Service, func(s *state.Service) { s.Streak = streak })
	}
}

// streak is what they had come to when the last daemon wrote it down.
func (r *records) streak(name string, now time.Time) supervisor.Streak {
	known := r.get(name)
	kept := known.Streak
	streak := supervisor.Streak{Fails: kept.Fails, Delay: time.Duration(kept.DelayMS) * time.Millisecond, Reason: kept.Reason}
	if !kept.Until.IsZero() {
		// The clock may have been set since: no rest becomes longer by that.
		streak.Left = min(max(kept.Until.Sub(now), 0), streak.Delay)
		return streak
	}
	if n := len(known.Runs); n > 0 && !known.Runs[n-1].Ready.IsZero() {
		streak = streak.After(known.Runs[n-1].End.Sub(known.Runs[n-1].Ready))
	}
	return streak
}

func (r *records) lastError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}
