package supervisor

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/locald/locald/runtime"
)

// wish is a want with the service as it is to be from then on.
type wish struct {
	Want
	service *Service // nil: as it is
}

// order is what the coordinator tells an actor, all of it in one step.
type order struct {
	wish *wish // nil: as before
	open bool  // what the service depends on is there
}

// actor owns one service. Only the goroutine in serve touches what is below
// the mailboxes.
type actor struct {
	publish func(Change)

	orders chan order // holds one: the latest
	post   *box[event]

	service *Service // of the current run
	next    *Service // of the next
	state   state
	inst    runtime.Instance
	info    runtime.Info
	current Run                // the run, once this actor has begun one
	scope   context.Context    // the current run's
	drop    context.CancelFunc // ends it
	abandon context.CancelFunc // ends what prepares or starts
	forgo   context.CancelFunc // ends what is fetched
	left    time.Duration      // of the rest that an earlier daemon began
	work    sync.WaitGroup
}

// newActor makes an actor whose next run will have the number run.
func newActor(service *Service, run int, publish func(Change)) *actor {
	return &actor{
		publish: publish,
		orders:  make(chan order, 1), post: newBox[event](),
		service: service, next: service,
		state: state{policy: service.Policy, phase: Stopped, run: run - 1},
		scope: context.Background(), drop: func() {}, abandon: func() {}, forgo: func() {},
	}
}

// resume goes on from what the service's failures had come to under an earlier
// daemon. It is called before serve.
func (a *actor) resume(from Streak) {
	s := &a.state
	s.want.Up, s.fails, s.delay = true, from.Fails, from.Delay
	s.ending = ending{Reason: from.Reason, Code: "exited"}
	switch {
	case s.policy.Restart == OnFailure && s.fails > s.policy.Max:
		s.phase = Failed
	case from.Left > 0:
		s.phase, a.left = Backoff, min(from.Left, maxRest)
	}
}

// tell replaces whatever the actor was told before and has not read. It never
// blocks. Only the coordinator calls it.
func (a *actor) tell(o order) {
	for {
		select {
		case a.orders <- o:
			return
		case overtaken := <-a.orders:
			switch {
			case o.wish == nil:
				o.wish = overtaken.wish
			case o.wish.service == nil && overtaken.wish != nil:
				o.wish.service = overtaken.wish.service
			}
		}
	}
}

// serve runs until ctx ends, and returns when every effect has. It leaves
// instances running: leaving is not stopping.
func (a *actor) serve(ctx context.Context) {
	defer a.work.Wait()
	defer func() { a.drop(); a.forgo() }()
	if a.state.phase == Backoff {
		a.scope, a.drop = context.WithCancel(ctx)
		a.do(ctx, rest)
	}
	for {
		select {
		case o := <-a.orders:
			a.obey(ctx, o)
		case <-a.post.wake:
			for _, e := range a.post.all() {
				a.handle(ctx, e)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (a *actor) obey(ctx context.Context, o order) {
	if o.wish == nil {
		a.handle(ctx, gated{o.open})
		return
	}
	if o.wish.service != nil {
		a.next = o.wish.service
		a.state.policy = a.next.Policy // how an ending is judged is not of the run
	}
	a.state.gate = o.open
	a.handle(ctx, wanted{o.wish.Want})
}

// born is started with the instance that came of it.
type born struct {
	started
	inst runtime.Instance
}

func (a *actor) handle(ctx context.Context, e event) {
	if p, ok := e.(reported); ok {
		if p.Run == a.state.run {
			a.publish(Change{Status: a.status(), Progress: &p.Progress})
		}
		return
	}
	before, run := a.status(), a.current
	next, effects := a.note(e).apply(a.state)
	if a.state.phase.Live() && (next.run != a.state.run || !next.phase.Live()) {
		a.current.EndedAt, a.current.Exit, a.current.Reason = time.Now(), next.ending.Exit, next.ending.Reason
	}
	if next.run != a.state.run {
		if a.current != run { // nobody hears of it otherwise
			ended := a.current
			a.publish(Change{Status: before, Run: &ended})
		}
		a.renew(ctx, &next)
	}
	if next.phase == Ready && !a.state.proven {
		a.current.ReadyAt = time.Now()
	}
	a.state = next
	if next.phase != Waiting && next.phase != Preparing {
		a.forgo()
	}
	if !next.phase.Live() && next.phase != Backoff && next.phase != Failed {
		a.drop()
	}
	for _, f := range effects {
		a.do(ctx, f)
	}
	a.tellOf(before, run)
}

// note takes from an event what is not for the decision, and adds what only
// the actor knows.
func (a *actor) note(e event) event {
	switch e := e.(type) {
	case born:
		if e.Err == nil {
			a.inst, a.info, a.current.StartedAt = e.inst, e.inst.Info(), time.Now()
		}
		return e.started
	case exited:
		if a.state.proven {
			e.ReadyFor = e.Exit.At.Sub(a.current.ReadyAt)
		}
		return e
	}
	return e
}

// tellOf publishes what differs from before.
func (a *actor) tellOf(before Status, run Run) {
	change := Change{Status: a.status()}
	if a.current != run {
		now := a.current
		change.Run = &now
	}
	if change.Status != before || change.Run != nil {
		a.publish(change)
	}
}

// renew turns to the run that begins.
func (a *actor) renew(ctx context.Context, s *state) {
	a.drop()
	a.scope, a.drop = context.WithCancel(ctx)
	a.service = a.next
	s.policy = a.service.Policy
	a.inst, a.info, a.current = nil, runtime.Info{}, Run{Number: s.run}
}

func (a *actor) status() Status {
	s := a.state
	return Status{
		Service: a.next.Name, Task: a.next.Policy.Task, Phase: s.phase, Want: s.want, Seen: s.want.Generation, Generation: s.made, Run: s.run,
		Proven: s.proven, Restarts: s.again, Early: s.early, Fails: s.fails, Delay: s.delay,
		Reason: s.ending.Reason, Code: s.ending.Code, Hint: either(s.ending.Hint, s.hint), Detail: s.detail, Overdue: s.overdue, Exit: s.ending.Exit,
		Info: a.info, StartedAt: a.current.StartedAt, ReadyAt: a.current.ReadyAt, EndedAt: a.current.EndedAt,
	}
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// do carries out one effect without blocking the actor.
func (a *actor) do(ctx context.Context, f effect) {
	run, service, inst := a.state.run, a.service, a.inst
	switch f {
	case fetch:
		a.fetch(ctx)
	case prepare:
		a.aside(func(ctx context.Context) event {
			return prepared{run, service.Prepare(ctx, run, func(p runtime.Progress) { a.progress(run, p) })}
		})
	case start:
		a.aside(func(ctx context.Context) event {
			spec, err := service.Spec(ctx, run)
			if err != nil {
				return born{started: started{run, err}}
			}
			inst, err := service.Runtime.Start(ctx, spec)
			return born{started{run, err}, inst}
		})
	case cancel:
		a.abandon()
	case watch:
		a.watch(ctx, run, service, inst)
	case stop:
		if inst == nil {
			a.abandon() // Start is in flight; its answer will bring us back here
			return
		}
		a.end(ctx, run, inst)
	case rest:
		delay := jittered(a.state.delay)
		if a.left > 0 {
			delay, a.left = a.left, 0
		}
		a.run(a.scope, func(ctx context.Context) event {
			select {
			case <-time.After(delay):
				return rested{run}
			case <-ctx.Done():
				return nil
			}
		})
	}
}

// fetch brings what the next run will need.
func (a *actor) fetch(ctx context.Context) {
	a.forgo()
	fetch, run := a.next.Fetch, a.state.run
	if fetch == nil {
		return
	}
	ctx, a.forgo = context.WithCancel(ctx)
	a.run(ctx, func(ctx context.Context) event {
		fetch(ctx, run+1, func(p runtime.Progress) { a.progress(run, p) })
		return nil
	})
}

// end stops the instance.
func (a *actor) end(ctx context.Context, run int, inst runtime.Instance) {
	grace, again := a.next.Grace, a.state.stuck
	if a.state.want.Force {
		grace = 0
	}
	a.run(ctx, func(ctx context.Context) event {
		err := inst.Stop(ctx, grace)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return stopFailed{run, err}
		case again:
			return a.wait(ctx, run, inst) // whoever watched it has reported, and gone
		}
		return nil
	})
}

// jittered spreads restarts by a tenth either way, so that services that ended
// together do not come back together.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// aside runs what prepare and start do, so that cancel reaches it.
func (a *actor) aside(f func(context.Context) event) {
	ctx, abandon := context.WithCancel(a.scope)
	a.abandon = abandon
	a.run(ctx, func(ctx context.Context) event {
		defer abandon()
		return f(ctx)
	})
}

// watch probes the instance and waits for its end.
func (a *actor) watch(ctx context.Context, run int, service *Service, inst runtime.Instance) {
	life, over := context.WithCancel(ctx)
	probing := make(chan struct{})
	a.work.Go(func() {
		defer close(probing)
		defer over() // where there is nothing to probe, as soon as that is clear
		service.Check(life, run, inst, func(f Finding) {
			if life.Err() == nil {
				a.post.put(probed{run, f})
			}
		})
	})
	a.run(ctx, func(ctx context.Context) event {
		e := a.wait(ctx, run, inst)
		over()
		<-probing // a run is over when all that served it is
		return e
	})
}

// wait reports the end of an instance once everything it held is released; nil
// when the daemon leaves first, and the instance stays.
func (a *actor) wait(ctx context.Context, run int, inst runtime.Instance) event {
	exit, err := inst.Wait(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return stopFailed{run, err}
	}
	for {
		err := inst.Remove(ctx)
		if !errors.Is(err, runtime.ErrUnavailable) {
			return exited{Run: run, Exit: exit, Err: err}
		}
		select { // what it held is released when the runtime is back
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *actor) progress(run int, p runtime.Progress) {
	a.post.put(reported{run, p})
}

// reported is progress on its way to subscribers. It changes nothing.
type reported struct {
	Run int
	runtime.Progress
}

func (e reported) apply(s state) (state, []effect) { return s, nil }

func (a *actor) run(ctx context.Context, f func(context.Context) event) {
	a.work.Go(func() {
		if e := f(ctx); e != nil {
			a.post.put(e)
		}
	})
}
