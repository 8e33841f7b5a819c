package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/supervisor"
)

// lastLines is how much of what a failed service wrote comes with its failure.
const lastLines = 20

// linger is how long an up goes on after the first failure, so that what starts
// beside it is seen to start.
const linger = 2 * time.Second

// goal is where the services that somebody waits for have to come.
type goal struct {
	names []string
	met   func(supervisor.Status) bool
	ends  bool     // met by an end, so one that is being stopped is on its way
	once  bool     // decided by the first failure
	down  []string // of which nothing may be left
}

// follower tells a client what happens until a goal is reached.
type follower struct {
	project *project.Project
	send    func(ipc.Event) error
	view    supervisor.View
	want    map[string]supervisor.Want // of the snapshot: what the client waits for
	reveal  bool
}

// follow begins with what a subscription knew when it began.
func follow(p *project.Project, sub *supervisor.Subscription, send func(ipc.Event) error) *follower {
	f := &follower{project: p, send: send, view: p.View(), want: map[string]supervisor.Want{}}
	for _, s := range sub.Snapshot {
		f.view.Status[s.Service] = s
		f.want[s.Service] = s.Want
	}
	return f
}

// verdict is how far a goal has been reached.
type verdict struct {
	failed []string // names, with why
	open   []string // names that are still waited for
}

// judge compares the services with the goal.
func (f *follower) judge(g goal) verdict {
	v := verdict{}
	add := func(name string, open bool, why string) {
		switch {
		case open:
			v.open = append(v.open, name)
		case why != "":
			v.failed = append(v.failed, why)
		}
	}
	for _, name := range g.names {
		open, why := f.raised(g, name)
		add(name, open, why)
	}
	for _, name := range g.down {
		open, why := f.lowered(name)
		add(name, open, why)
	}
	return v
}

// raised reports whether a service is still on its way to the goal, or why it
// will not get there.
func (f *follower) raised(g goal, name string) (open bool, why string) {
	s, known := f.view.Status[name]
	switch {
	case !known:
		return false, name + " is not up"
	case s.Stale():
		return true, ""
	case g.ends && s.Phase == supervisor.Failed:
		return false, name + " failed"
	case g.met(s):
		return false, ""
	case s.Hopeless():
		return false, name + " failed"
	case !s.Want.Up && !g.ends:
		return false, name + " was stopped"
	case s.Phase == supervisor.Finished && s.Generation == s.Want.Generation:
		return false, name + " has ended"
	case s.Phase == supervisor.Waiting:
		if why, lost := f.view.Blocked(name); lost {
			return false, name + ": " + why
		}
	}
	return true, ""
}

// lowered reports whether a service that is wanted down is still on its way,
// or why it will not get there.
func (f *follower) lowered(name string) (open bool, why string) {
	s, known := f.view.Status[name]
	switch {
	case !known:
		return false, ""
	case s.Stale():
		return true, ""
	case s.Phase == supervisor.Failed && s.Code == ipc.CodeStopFailed:
		return false, name + ": " + s.Reason
	}
	return s.Phase.Live(), ""
}

// isUp is the goal of up: ready, or for a task completed. What was ready and
// has ended well since is not a failure.
func isUp(s supervisor.Status) bool {
	return s.Up() || s.Phase == supervisor.Finished && s.Generation == s.Want.Generation && s.Code == ""
}

// tally is how a goal stands, kept up to date as changes come: all services
// judged anew for each of them would cost the square of their number.
type tally struct {
	*follower
	goal      goal
	down      map[string]bool // by name of the goal's services: nothing may be left of it
	waiters   map[string][]string
	open      map[string]bool // whether it is being prepared
	preparing int             // how many of those are
	failed    map[string]bool
}

func (f *follower) tally(g goal) *tally {
	t := &tally{follower: f, goal: g, down: map[string]bool{}, waiters: map[string][]string{}, open: map[string]bool{}, failed: map[string]bool{}}
	for name, deps := range f.view.Deps {
		for _, d := range deps {
			t.waiters[d.Service] = append(t.waiters[d.Service], name)
		}
	}
	for _, name := range g.names {
		t.down[name] = false
		t.look(name)
	}
	for _, name := range g.down {
		t.down[name] = true
		t.look(name)
	}
	return t
}

// look judges one service.
func (t *tally) look(name string) {
	down, counts := t.down[name]
	if !counts {
		return
	}
	if t.open[name] {
		t.preparing--
	}
	delete(t.open, name)
	delete(t.failed, name)
	open, why := false, ""
	if down {
		open, why = t.lowered(name)
	} else {
		open, why = t.raised(t.goal, name)
	}
	switch {
	case open:
		t.open[name] = t.view.Status[name].Phase == supervisor.Preparing
		if t.open[name] {
			t.preparing++
		}
	case why != "":
		t.failed[name] = true
	}
}

// hear judges those that have changed, and those that wait for them.
func (t *tally) hear(changes []supervisor.Change) {
	seen := map[string]bool{}
	var reach func(name string)
	reach = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		t.look(name)
		for _, n := range t.waiters[name] {
			if t.view.Status[n].Phase == supervisor.Waiting {
				reach(n)
			}
		}
	}
	for _, c := range changes {
		reach(c.Status.Service)
	}
}

// until hears changes until the goal is decided, the limit has passed or the
// client has gone. What is being prepared does not count towards the limit.
func (f *follower) until(ctx context.Context, sub *supervisor.Subscription, g goal, limit time.Duration) (verdict, error) {
	clock := budget{left: limit}
	var enough time.Time // once something has failed
	for t := f.tally(g); ; {
		if len(t.open) == 0 || g.once && len(t.failed) > 0 {
			return f.judge(g), nil
		}
		now := time.Now()
		if len(t.failed) > 0 && enough.IsZero() {
			enough = now.Add(linger)
		}
		deadline := clock.deadline(now, t.preparing == 0)
		switch {
		case !enough.IsZero() && !now.Before(enough):
			return f.judge(g), nil
		case !deadline.IsZero() && !now.Before(deadline):
			return f.judge(g), context.DeadlineExceeded
		}
		changes, err := next(ctx, sub, deadline, enough)
		if err != nil {
			return verdict{}, err
		}
		for _, c := range changes {
			if err := f.tell(c); err != nil {
				return verdict{}, err
			}
		}
		t.hear(changes)
	}
}

// awaitTasks returns once it is on disk that the tasks have completed which are
// seen to have: who was told of it must not find them run again after a crash.
func (f *follower) awaitTasks(ctx context.Context) {
	for name, s := range f.view.Status {
		if s.Task && s.Phase == supervisor.Finished && !s.EndedAt.IsZero() {
			f.project.AwaitEnd(ctx, name, s.Run)
		}
	}
}

// next waits for changes, at most until the earlier of two moments that are
// set. It returns none when the time was up.
func next(ctx context.Context, sub *supervisor.Subscription, moments ...time.Time) ([]supervisor.Change, error) {
	waiting := ctx
	for _, m := range moments {
		if !m.IsZero() {
			var cancel context.CancelFunc
			waiting, cancel = context.WithDeadline(waiting, m)
			defer cancel()
		}
	}
	changes, err := sub.Next(waiting)
	if err != nil && ctx.Err() == nil {
		return nil, nil // the time is up
	}
	return changes, err
}

// tell passes one change on.
func (f *follower) tell(c supervisor.Change) error {
	now := c.Status
	before := f.view.Status[now.Service]
	if wanted := f.want[now.Service]; now.Want.Generation < wanted.Generation {
		now.Want = wanted // it has not heard of it yet
	}
	f.view.Status[now.Service] = now
	if c.Progress != nil {
		return f.send(ipc.Event{
			Time: time.Now().UTC(), Service: now.Service, Event: ipc.EventProgress,
			Message: c.Progress.Step, Layer: c.Progress.Layer, Phase: string(c.Progress.Phase),
			Current: c.Progress.Current, Total: c.Progress.Total,
		})
	}
	e, news := event(before, now, f.view)
	if !news {
		return nil
	}
	switch e.Event {
	case ipc.EventFailed:
		e.Lines = lastOf(f.project, now)
	case ipc.EventHealthy:
		facts, _ := f.project.Facts(now.Service)
		e.Message = service(facts, now, true, f.view, f.reveal).URL
		for _, h := range facts.Hidden {
			if err := f.send(ipc.Event{Time: e.Time, Service: now.Service, Event: ipc.EventNote, Message: h}); err != nil {
				return err
			}
		}
	}
	return f.send(e)
}

// lastOf is the last that the failed run wrote.
func lastOf(p *project.Project, s supervisor.Status) []ipc.LogLine {
	if s.Run == 0 {
		return nil
	}
	last, err := logs.Last(p.Log(s.Service), lastLines, s.Run)
	if err != nil {
		return nil // the failure is told all the same
	}
	lines := make([]ipc.LogLine, len(last))
	for i, l := range last {
		lines[i] = line(s.Service, l)
	}
	return lines
}

// overdue says what is still waited for, and what the probes said last.
func (f *follower) overdue(v verdict, limit time.Duration) *ipc.Error {
	code, waits := ipc.CodeTimeout, []string(nil)
	for _, name := range v.open {
		s := f.view.Status[name]
		switch why, _ := f.view.Blocked(name); {
		case s.Detail != "":
			code = ipc.CodeProbeTimeout
			waits = append(waits, name+": "+s.Detail)
		case s.Phase == supervisor.Waiting:
			waits = append(waits, name+": "+why)
		default:
			waits = append(waits, name+" is "+shown(s))
		}
	}
	return &ipc.Error{Code: code, Message: fmt.Sprintf("not ready after %v: %s", limit, strings.Join(waits, "; ")), Hint: "locald logs " + first(v.open)}
}

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// budget is time that passes only while it counts.
type budget struct {
	left  time.Duration
	since time.Time // when it began to count; zero while it does not
}

// deadline is when the time is up if it goes on counting; zero while it does
// not count.
func (b *budget) deadline(now time.Time, counts bool) time.Time {
	if !b.since.IsZero() {
		b.left -= now.Sub(b.since)
		b.since = time.Time{}
	}
	if !counts {
		return time.Time{}
	}
	b.since = now
	return now.Add(b.left)
}
