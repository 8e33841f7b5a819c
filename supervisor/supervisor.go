package supervisor

import (
	"context"
	"slices"
	"sync"
)

// Wish is what is asked of one service.
type Wish struct {
	Name    string
	Up      bool
	Renew   bool     // a new generation even when it is up: restart, or run a task again
	Alone   bool     // wait only for dependencies that are wished for in the same step
	Force   bool     // stop at once, without asking first
	Service *Service // what it is to be from the next run on; nil: as it is
	Run     int      // with a Service that is new here: the number of its first run
	Done    bool     // with a Service that is new here, a task: it has run to its end before
	Streak  Streak   // with a Service that is new here: its failures in a row so far
	Forget  bool     // the service is gone from the project: forget it once it is down
}

// Supervisor keeps the services of one project. Its methods may be called
// concurrently, while Serve runs; after Serve has returned they do nothing.
type Supervisor struct {
	asks  chan func(*coordinator)
	done  chan struct{}
	heard *box[Change] // from the actors
}

// New makes a supervisor of no services.
func New() *Supervisor {
	return &Supervisor{
		asks: make(chan func(*coordinator)), done: make(chan struct{}),
		heard: newBox[Change](),
	}
}

// coordinator is what the goroutine in Serve owns: it alone knows the graph.
type coordinator struct {
	ctx         context.Context
	heard       *box[Change]
	members     map[string]*member
	graph       graph
	inverse     map[string][]string
	subscribers map[*Subscription]bool
	work        sync.WaitGroup
	touched     map[string]bool // by what is heard; kept for its memory
}

// member is one service as the coordinator sees it.
type member struct {
	actor  *actor
	deps   []Dep
	status Status
	want   Want            // the latest wish, handed out or not
	held   *wish           // a wish that has to wait until its dependents have stopped
	among  map[string]bool // when it is to start alone: the only dependencies that count
	open   bool            // what the actor was last told of its gate
	forget bool
	cancel context.CancelFunc
}

// alone reports whether the service is still to start for a wish that it start
// alone.
func (m *member) alone() bool { return m.among != nil && m.status.Generation != m.want.Generation }

// Serve runs until ctx ends and every goroutine of every service has returned.
// Instances are left running: a wish to be down is how to end services.
func (s *Supervisor) Serve(ctx context.Context) {
	c := &coordinator{
		ctx: ctx, heard: s.heard,
		members: map[string]*member{}, subscribers: map[*Subscription]bool{}, touched: map[string]bool{},
	}
	defer close(s.done)
	defer c.work.Wait()
	for {
		select {
		case ask := <-s.asks:
			ask(c)
		case <-s.heard.wake:
			c.hear(s.heard.all())
		case <-ctx.Done():
			return
		}
	}
}

// ask runs f on the coordinator's goroutine and waits for it. After the end of
// Serve it does nothing.
func (s *Supervisor) ask(f func(*coordinator)) {
	ran := make(chan struct{})
	select {
	case s.asks <- func(c *coordinator) { defer close(ran); f(c) }:
		<-ran
	case <-s.done:
	}
}

// Apply hands out wishes, all in one step: what they mean for each other is
// decided when all are known. It returns the statuses right after.
func (s *Supervisor) Apply(wishes []Wish) []Status {
	var after []Status
	s.ask(func(c *coordinator) {
		c.apply(wishes)
		after = c.snapshot()
	})
	return after
}

// Snapshot is the status of every service, by name.
func (s *Supervisor) Snapshot() []Status {
	var now []Status
	s.ask(func(c *coordinator) { now = c.snapshot() })
	return now
}

// Dependents is everything that depends on one of names, directly or not.
func (s *Supervisor) Dependents(names []string) []string {
	var found []string
	s.ask(func(c *coordinator) { found = c.graph.dependents(names) })
	return found
}

// Subscription hears every change, in order, from a snapshot on.
type Subscription struct {
	Snapshot []Status
	box      *box[Change]
}

// Next waits for changes and returns all that have come.
func (sub *Subscription) Next(ctx context.Context) ([]Change, error) { return sub.box.take(ctx) }

// Rest returns what has come and has not been heard, without waiting.
func (sub *Subscription) Rest() []Change { return sub.box.all() }

// Subscribe begins to hear, and applies wishes in the same step, so that no
// change they cause is missed: the snapshot has what was known when they were
// made, with the wishes in it. Call end when done.
func (s *Supervisor) Subscribe(wishes ...Wish) (sub *Subscription, end func()) {
	sub = &Subscription{box: newBox[Change]()}
	s.ask(func(c *coordinator) {
		c.subscribers[sub] = true
		c.apply(wishes)
		sub.Snapshot = c.snapshot()
	})
	return sub, func() { s.ask(func(c *coordinator) { delete(c.subscribers, sub) }) }
}

func (c *coordinator) snapshot() []Status {
	names := make([]string, 0, len(c.members))
	for name := range c.members {
		names = append(names, name)
	}
	slices.Sort(names)
	all := make([]Status, len(names))
	for i, name := range names {
		m := c.members[name]
		all[i] = m.status
		all[i].Want = m.want // what was asked for counts from when it was asked
		all[i].Alone = m.alone()
	}
	return all
}

func (c *coordinator) apply(wishes []Wish) {
	for _, w := range wishes {
		c.enlist(w)
	}
	c.draw()
	together := map[string]bool{}
	for _, w := range wishes {
		together[w.Name] = true
	}
	for _, w := range wishes {
		m := c.members[w.Name]
		if m == nil {
			continue
		}
		want := Want{Up: w.Up, Generation: m.want.Generation, Force: w.Force}
		m.among = nil
		if w.Alone {
			m.among = together
		}
		if w.Up != m.want.Up || w.Renew {
			want.Generation++
		} else {
			want.Force = want.Force || m.want.Force // what was to be forced stays so
		}
		m.want, m.forget = want, w.Forget
		service := w.Service
		if service == nil && m.held != nil {
			service = m.held.service
		}
		m.held = &wish{want, service}
	}
	c.settle(c.everybody())
}

// enlist makes a member of a service that is new here.
func (c *coordinator) enlist(w Wish) {
	if m := c.members[w.Name]; m != nil {
		if w.Service != nil {
			m.deps = w.Service.Deps
		}
		return
	}
	if w.Service == nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	a := newActor(w.Service, max(w.Run, 1), func(change Change) { c.heard.put(change) })
	if w.Done {
		a.state.phase, a.state.want.Up, a.state.run = Finished, true, max(w.Run, 1)-1
	}
	if w.Streak.Fails > 0 && !w.Done {
		a.resume(w.Streak)
	}
	m := &member{actor: a, deps: w.Service.Deps, cancel: cancel, status: a.status()}
	m.want = m.status.Want
	c.members[w.Name] = m
	if m.status.Phase != Stopped {
		c.heard.put(Change{Status: m.status}) // what was before: no event brings it
	}
	c.work.Go(func() { a.serve(ctx) })
}

// draw makes the graph anew from the members.
func (c *coordinator) draw() {
	c.graph = graph{}
	for n, m := range c.members {
		c.graph[n] = m.deps
	}
	c.inverse = c.graph.inverse()
}

func (c *coordinator) hear(changes []Change) {
	clear(c.touched)
	for i := range changes {
		name := changes[i].Status.Service
		if m := c.members[name]; m != nil {
			m.status = changes[i].Status
			changes[i].Status.Alone = m.alone()
			c.touch(name, m)
		}
	}
	for sub := range c.subscribers {
		sub.box.put(changes...)
	}
	c.settle(c.touched)
}

// touch notes those for whom it matters how a service is: itself, those that
// wait for it to come, and those that wait for it to go.
func (c *coordinator) touch(name string, m *member) {
	c.touched[name] = true
	for _, n := range c.inverse[name] {
		c.touched[n] = true
	}
	for _, d := range m.deps {
		c.touched[d.Service] = true
	}
}

// everybody is who is concerned by a step that concerns all.
func (c *coordinator) everybody() map[string]bool {
	clear(c.touched)
	for name := range c.members {
		c.touched[name] = true
	}
	return c.touched
}

// settle hands out the wishes that need wait no longer to those of these
// services, and tells each whether what it depends on is there.
func (c *coordinator) settle(names map[string]bool) {
	released := c.release(names)
	for name := range released {
		for _, n := range c.inverse[name] {
			names[n] = true // what is held has not come
		}
	}
	gone := false
	for name := range names {
		m := c.members[name]
		if m == nil {
			continue
		}
		open, w := c.gate(m), released[name]
		if w != nil || open != m.open {
			m.open = open
			m.actor.tell(order{w, open})
		}
		if m.forget && m.held == nil && m.status.Phase == Stopped && m.status.Want == m.want {
			m.cancel()
			delete(c.members, name)
			gone = true
		}
	}
	if gone {
		c.draw()
		c.settle(c.everybody())
	}
}

// release is the wishes of these services that need wait no longer.
func (c *coordinator) release(names map[string]bool) map[string]*wish {
	var released map[string]*wish
	for name := range names {
		m := c.members[name]
		if m == nil || m.held == nil || c.mustWait(m) {
			continue
		}
		if released == nil {
			released = map[string]*wish{}
		}
		released[name], m.held = m.held, nil
	}
	return released
}

// mustWait reports whether a wish that stops a service has to wait for
// dependents that are to stop too.
func (c *coordinator) mustWait(m *member) bool {
	if !m.status.Phase.Live() || m.held.Force {
		return false
	}
	if m.held.Up && m.held.Generation == m.status.Generation {
		return false // nothing stops
	}
	return slices.ContainsFunc(c.inverse[m.status.Service], func(name string) bool {
		d := c.members[name]
		leaves := !d.want.Up || d.want.Generation != d.status.Generation
		return leaves && d.status.Phase.Live()
	})
}

// gate reports whether everything that m depends on is there.
func (c *coordinator) gate(m *member) bool {
	for _, d := range m.deps {
		if m.among != nil && !m.among[d.Service] {
			continue
		}
		on := c.members[d.Service]
		if on == nil || on.held != nil {
			return false
		}
		status := on.status
		status.Want = on.want
		if m.alone() && !on.want.Up {
			continue // it was wanted when this was wished for, and would not have been waited for
		}
		if !d.met(status) {
			return false
		}
	}
	return true
}
