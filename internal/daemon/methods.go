package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// table is what clients can ask: the whole surface on one screen.
func (d *Daemon) table() ipc.Table {
	return ipc.Table{
		ipc.CallPing:    ipc.Answer(d.ping),
		ipc.CallUp:      stream(d.up),
		ipc.CallPlan:    ipc.Answer(d.plan),
		ipc.CallDown:    stream(d.down),
		ipc.CallStart:   stream(d.start),
		ipc.CallStop:    stream(d.stop),
		ipc.CallRestart: stream(d.restart),
		ipc.CallStatus:  ipc.Answer(d.status),
		ipc.CallWatch:   ipc.Stream(d.watch),
		ipc.CallList:    ipc.Answer(d.list),
		ipc.CallHistory: ipc.Answer(d.history),
		ipc.CallEnv:     ipc.Answer(d.env),
		ipc.CallWait:    stream(d.wait),
		ipc.CallRun:     stream(d.run),
		ipc.CallLogs:    ipc.Stream(d.logs).Patient(),
		ipc.CallStore:   ipc.Stream(d.logStore).Patient(),
		ipc.CallDoctor:  ipc.Answer(d.doctor),
		ipc.CallLeft:    ipc.Answer(d.leftovers),
		ipc.CallImages:  ipc.Answer(d.images),
		ipc.CallPrune:   ipc.Answer(d.pruneImages),
		ipc.CallStopAll: stream(d.stopAll),
	}
}

// stream is a method that answers events and ends with one for the whole.
func stream[A any](handle func(context.Context, A, func(ipc.Event) error) (ipc.Event, error)) ipc.Method {
	return ipc.Stream(func(ctx context.Context, args A, send func(ipc.Event) error) error {
		last, err := handle(ctx, args, send)
		if err != nil {
			return fault(err)
		}
		last.Time = time.Now().UTC()
		return send(last)
	})
}

// ended is the last event of a stream.
func ended(exit int, status *ipc.Status, message string) ipc.Event {
	e := ipc.Event{Event: ipc.EventDone, Exit: &exit, Status: status, Message: message}
	if exit != 0 {
		e.Event = ipc.EventFailed
	}
	return e
}

func (d *Daemon) ping(context.Context, ipc.NoArgs) (ipc.Daemon, error) {
	answer := ipc.Daemon{
		PID: os.Getpid(), Version: d.options.Version, Protocol: ipc.Protocol, StartedAt: stamp(d.began),
		State: d.options.Places.Dir, Socket: d.socket, Log: d.options.Places.Log, Restored: d.restored(),
	}
	for _, p := range d.known() {
		answer.Wanted += p.Record().Wanted()
	}
	return answer, nil
}

func (d *Daemon) ask(a ipc.UpArgs) (project.Ask, error) {
	switch runtime.Pull(a.Pull) {
	case "", runtime.PullAlways, runtime.PullMissing, runtime.PullNever:
	default:
		return project.Ask{}, &ipc.Error{Code: ipc.CodeInvalidRequest, Message: fmt.Sprintf("pull %q: always, missing or never", a.Pull)}
	}
	return project.Ask{
		Ask:  supervisor.Ask{Names: a.Services, Alone: a.NoDeps, Recreate: a.ForceRecreate},
		File: a.File, Profiles: a.Profiles, Env: a.Env, Pull: runtime.Pull(a.Pull),
	}, nil
}

func (d *Daemon) plan(ctx context.Context, a ipc.UpArgs) (ipc.Plan, error) {
	ask, err := d.ask(a)
	if err != nil {
		return ipc.Plan{}, err
	}
	d.awaitWishes(ctx)
	p, err := d.open(a.Project)
	if err != nil {
		return ipc.Plan{}, fault(err)
	}
	steps, err := p.Plan(ctx, ask)
	plan := ipc.Plan{Changes: []ipc.Change{}}
	for _, s := range steps {
		plan.Changes = append(plan.Changes, ipc.Change{Service: s.Service, Op: string(s.Op), Cause: s.Cause})
	}
	return plan, fault(err)
}

func (d *Daemon) up(ctx context.Context, a ipc.UpArgs, send func(ipc.Event) error) (ipc.Event, error) {
	ask, err := d.ask(a)
	if err != nil {
		return ipc.Event{}, err
	}
	return d.bring(ctx, a.Project, ask, a.WaitTimeout, a.Detach, send)
}

// bring is what up, start and restart have in common.
func (d *Daemon) bring(ctx context.Context, of ipc.Project, ask project.Ask, timeout string, detach bool, send func(ipc.Event) error) (ipc.Event, error) {
	limit, err := waitLimit(timeout)
	if err != nil {
		return ipc.Event{}, err
	}
	d.awaitWishes(ctx)
	p, err := d.open(of)
	if err != nil {
		return ipc.Event{}, err
	}
	defer d.hurry()()
	sub, end, steps, err := p.Up(ctx, ask)
	if err != nil {
		return ipc.Event{}, err
	}
	defer end()
	if err := tellPlan(steps, send); err != nil {
		return ipc.Event{}, err
	}
	if detach {
		return ended(0, d.statusOf(p, nil, false), ""), nil
	}
	f := follow(p, sub, send)
	v, err := f.until(ctx, sub, goalOf(steps), limit)
	if errors.Is(err, context.DeadlineExceeded) {
		late := f.overdue(v, limit)
		e := ended(124, d.statusOf(p, nil, false), late.Message)
		e.Code, e.Hint = late.Code, late.Hint
		return e, nil
	}
	if err != nil {
		return ipc.Event{}, err
	}
	f.awaitTasks(ctx)
	if len(v.failed) > 0 {
		return ended(1, d.statusOf(p, nil, false), strings.Join(v.failed, "; ")), nil
	}
	return ended(0, d.statusOf(p, nil, false), ""), nil
}

// defaultWait is how long up waits.
const defaultWait = 5 * time.Minute

func waitLimit(text string) (time.Duration, error) {
	if text == "" {
		return defaultWait, nil
	}
	limit, err := config.Duration(text)
	if err != nil {
		return 0, &ipc.Error{Code: ipc.CodeInvalidRequest, Message: err.Error(), Hint: "--wait-timeout 30s"}
	}
	return limit, nil
}

// tellPlan says what changes beyond a plain start.
func tellPlan(steps []supervisor.Step, send func(ipc.Event) error) error {
	for _, s := range steps {
		if s.Op == supervisor.OpKeep || s.Op == supervisor.OpStart && s.Cause == "not running" {
			continue
		}
		e := ipc.Event{Time: time.Now().UTC(), Service: s.Service, Event: ipc.EventNote, Message: string(s.Op) + ": " + s.Cause}
		if err := send(e); err != nil {
			return err
		}
	}
	return nil
}

// goalOf is where a plan leads.
func goalOf(steps []supervisor.Step) goal {
	g := goal{met: isUp}
	for _, s := range steps {
		if s.Op == supervisor.OpStop {
			g.down = append(g.down, s.Service)
		} else {
			g.names = append(g.names, s.Service)
		}
	}
	return g
}

func (d *Daemon) start(ctx context.Context, a ipc.ServiceArgs, send func(ipc.Event) error) (ipc.Event, error) {
	ask := project.Ask{File: a.File, Ask: supervisor.Ask{Names: a.Services}, Profiles: a.Profiles, Env: a.Env}
	return d.bring(ctx, a.Project, ask, a.WaitTimeout, false, send)
}

func (d *Daemon) restart(ctx context.Context, a ipc.ServiceArgs, send func(ipc.Event) error) (ipc.Event, error) {
	ask := project.Ask{File: a.File, Ask: supervisor.Ask{Names: a.Services, Restart: true, Alone: true}, Profiles: a.Profiles, Env: a.Env}
	return d.bring(ctx, a.Project, ask, a.WaitTimeout, false, send)
}

func (d *Daemon) stop(ctx context.Context, a ipc.ServiceArgs, send func(ipc.Event) error) (ipc.Event, error) {
	d.awaitWishes(ctx)
	p, err := d.open(a.Project)
	if err != nil {
		return ipc.Event{}, err
	}
	return d.lower(ctx, p, a.Services, false, send)
}

func (d *Daemon) down(ctx context.Context, a ipc.DownArgs, send func(ipc.Event) error) (ipc.Event, error) {
	d.awaitWishes(ctx)
	p, err := d.open(a.Project)
	if err != nil {
		return ipc.Event{}, err
	}
	names := a.Services
	if len(names) > 0 {
		also := p.Dependents(names)
		for _, n := range also {
			var on []string // that stops too
			for _, dep := range p.View().Deps[n] {
				if slices.Contains(names, dep.Service) || slices.Contains(also, dep.Service) {
					on = append(on, dep.Service)
				}
			}
			note := ipc.Event{Time: time.Now().UTC(), Service: n, Event: ipc.EventNote, Message: "stop: depends on " + strings.Join(on, ", ")}
			if err := send(note); err != nil {
				return ipc.Event{}, err
			}
		}
		names = append(slices.Clone(names), also...)
	}
	last, err := d.lower(ctx, p, names, a.Force, send)
	if err == nil && *last.Exit == 0 && a.Volumes {
		err = p.DeleteData(ctx, a.Services)
	}
	if err != nil || !a.Verify {
		return last, err
	}
	return d.verify(ctx, last, ipc.LeftArgs{Project: a.Project, Services: names, Volumes: a.Volumes})
}

// verify adds to the end of a down what is still there.
func (d *Daemon) verify(ctx context.Context, last ipc.Event, of ipc.LeftArgs) (ipc.Event, error) {
	found, err := d.remains(ctx, of)
	if err != nil {
		return ipc.Event{}, err
	}
	return last.Verified(found), nil
}

// lower wants services down and waits for the proof.
func (d *Daemon) lower(ctx context.Context, p *project.Project, names []string, force bool, send func(ipc.Event) error) (ipc.Event, error) {
	defer d.hurry()()
	sub, end, err := p.Down(names, force)
	if err != nil {
		return ipc.Event{}, err
	}
	defer end()
	if len(names) == 0 {
		for _, s := range sub.Snapshot {
			names = append(names, s.Service)
		}
		for name := range p.Record().Wants { // also what an earlier daemon ran
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	failed, err := followDown(ctx, p, sub, names, send)
	if err != nil {
		return ipc.Event{}, err
	}
	failed = append(failed, d.left(ctx, p, names)...)
	if len(failed) > 0 {
		e := ended(1, d.statusOf(p, nil, false), strings.Join(failed, "; "))
		e.Code = ipc.CodeStopFailed
		return e, nil
	}
	return ended(0, d.statusOf(p, nil, false), ""), nil
}

// followDown tells what stops until nothing of names is left, and what could
// not be stopped.
func followDown(ctx context.Context, p *project.Project, sub *supervisor.Subscription, names []string, send func(ipc.Event) error) (failed []string, err error) {
	f, g := follow(p, sub, send), goal{down: names}
	for t := f.tally(g); len(t.open) > 0; {
		changes, err := sub.Next(ctx)
		if err != nil {
			return nil, err
		}
		for _, c := range changes {
			if err := f.tell(c); err != nil {
				return nil, err
			}
		}
		t.hear(changes)
	}
	return f.judge(g).failed, nil
}

func (d *Daemon) wait(ctx context.Context, a ipc.WaitArgs, send func(ipc.Event) error) (ipc.Event, error) {
	limit, err := waitLimit(a.Timeout)
	if err != nil {
		return ipc.Event{}, err
	}
	d.awaitWishes(ctx)
	p, err := d.look(a.Project)
	if err != nil {
		return ipc.Event{}, err
	}
	names, err := p.Known(a.Services)
	if err != nil {
		return ipc.Event{}, err
	}
	if len(a.Services) == 0 {
		record := p.Record()
		names = slices.DeleteFunc(names, func(n string) bool { return !record.Wants[n] })
	}
	if len(names) == 0 {
		e := ended(1, nil, "nothing is wanted here, so there is nothing to wait for")
		e.Hint = "locald up"
		return e, nil
	}
	g := goal{names: names, met: supervisor.Status.Up, once: true}
	switch a.For {
	case "", "ready":
	case "exited":
		g.ends = true
		g.met = func(s supervisor.Status) bool { return !s.Phase.Live() && s.Phase != supervisor.Waiting }
	default:
		return ipc.Event{}, &ipc.Error{Code: ipc.CodeInvalidRequest, Message: fmt.Sprintf("wait for %q: ready or exited", a.For), Hint: "--for ready"}
	}
	sub, end := p.Watch()
	defer end()
	f := follow(p, sub, send)
	v, err := f.until(ctx, sub, g, limit)
	if errors.Is(err, context.DeadlineExceeded) {
		late := f.overdue(v, limit)
		e := ended(124, nil, late.Message)
		e.Code, e.Hint = late.Code, late.Hint
		return e, nil
	}
	if err != nil {
		return ipc.Event{}, err
	}
	if len(v.failed) > 0 {
		return ended(1, nil, strings.Join(v.failed, "; ")), nil
	}
	return ended(0, nil, ""), nil
}

func (d *Daemon) run(ctx context.Context, a ipc.RunArgs, send func(ipc.Event) error) (ipc.Event, error) {
	d.awaitWishes(ctx)
	p, err := d.open(a.Project)
	if err != nil {
		return ipc.Event{}, err
	}
	var place project.Place
	switch a.Mode {
	case "exec":
		place, err = p.Inside(a.Service, a.Env)
	case "run":
		if last, err := d.bringNeeds(ctx, p, a, send); err != nil || last != nil {
			return deref(last), err
		}
		place, err = p.OnHost(ctx, a.File, a.Service, a.Env)
	default:
		err = &ipc.Error{Code: ipc.CodeInvalidRequest, Message: fmt.Sprintf("mode %q: run or exec", a.Mode)}
	}
	if err != nil {
		return ipc.Event{}, err
	}
	last := ended(0, nil, "")
	last.Target = &ipc.Target{Dir: place.Dir, Env: place.Env, Engine: place.Engine, Host: place.Host, Container: place.Container}
	return last, nil
}

func deref(e *ipc.Event) ipc.Event {
	if e == nil {
		return ipc.Event{}
	}
	return *e
}

// bringNeeds starts what a service depends on. It returns the last event of
// the stream when that did not go well.
func (d *Daemon) bringNeeds(ctx context.Context, p *project.Project, a ipc.RunArgs, send func(ipc.Event) error) (*ipc.Event, error) {
	needs, err := p.Needs(a.File, a.Service)
	if err != nil || a.NoDeps || len(needs) == 0 {
		return nil, err
	}
	var names []string
	for _, n := range needs {
		names = append(names, n.Service)
	}
	last, err := d.bring(ctx, a.Project, project.Ask{File: a.File, Ask: supervisor.Ask{Names: names, Needed: true}, Profiles: a.Profiles, Env: a.Env}, "", false, send)
	if err != nil || *last.Exit != 0 {
		return &last, err
	}
	return nil, nil
}
