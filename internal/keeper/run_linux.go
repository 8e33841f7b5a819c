package keeper

import (
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// How long a run's end may take beyond its grace.
const (
	linger    = time.Second     // for what is left when the main process has ended
	hardLimit = 4 * time.Second // for forcing, after which survivors are named
)

// run is one run in the keeper. What changes is guarded by host.mu.
type run struct {
	id      uint64
	mark    Mark
	pid     int
	thread  int    // of the keeper, that forked it
	born    uint64 // ticks before the fork
	oom     uint64 // how many the kernel had ended for want of memory before that
	signal  unix.Signal
	grace   time.Duration
	log     string
	number  int
	streams []*stream
	self    identity     // of the main process, once the ledger has it
	group   *runGroup    // nil where there is none
	bounds  *bounds      // nil without limits
	wrote   atomic.Int64 // when output last had the ledger look, ns

	reaped   bool // the main process has ended
	clean    bool // and we had no child after that which could be the run's
	exit     Exit
	ending   bool // a goroutine is in end
	asked    bool // the group was sent the stop signal
	deadline time.Time
	poke     chan struct{} // there is a nearer deadline, or another attempt is wanted
	verdict  *verdict
}

// verdict is what one attempt to stop a run came to.
type verdict struct {
	done chan struct{}
	left []Survivor
}

func newVerdict() *verdict { return &verdict{done: make(chan struct{})} }

// stop asks a run to end and returns what could not be ended.
func (h *host) stop(r *run, grace time.Duration) []Survivor {
	h.mu.Lock()
	deadline := time.Now().Add(grace)
	if !r.asked && !r.reaped {
		r.asked = true
		h.ask(r)
	}
	if r.deadline.IsZero() || deadline.Before(r.deadline) {
		r.deadline = deadline
	}
	if !r.ending {
		r.ending = true
		go h.end(r)
	}
	v := r.verdict
	h.mu.Unlock()
	select {
	case r.poke <- struct{}{}:
	default:
	}
	<-v.done
	return v.left
}

// ask sends the stop signal to the group of the main process. The group is the
// run's as long as its leader is our child and not reaped.
func (h *host) ask(r *run) {
	_ = unix.Kill(-r.pid, r.signal)
	if group, err := unix.Getpgid(r.pid); err == nil && group != r.pid {
		_ = unix.Kill(r.pid, r.signal)
		_ = unix.Kill(r.pid, unix.SIGCONT)
	}
	_ = unix.Kill(-r.pid, unix.SIGCONT)
}

// end sees a run to its end: it began to be stopped, or its main process ended.
func (h *host) end(r *run) {
	h.await(r, func() time.Time { return r.deadline }, func() bool { return r.reaped })
	h.mu.Lock()
	var left []int
	if r.reaped && !r.clean {
		left = h.orphans(r)
		if !r.asked {
			r.exit.Left = living(left)
		}
	}
	h.mu.Unlock()
	if len(left) > 0 {
		h.release(r)
	}
	for !h.gone(r) {
		survivors := h.force(r)
		if len(survivors) == 0 {
			continue
		}
		h.report(r, survivors)
		h.await(r, func() time.Time { return time.Time{} }, func() bool { return h.goneLocked(r) })
	}
	r.bounds.remove()
	for _, s := range r.streams {
		s.finish()
	}
	h.mu.Lock()
	delete(h.runs, r.id)
	v := r.verdict
	h.mu.Unlock()
	h.ledger.stir(nil)
	h.say(answer{ID: r.id, Gone: &r.exit})
	close(v.done)
}

// living counts the processes that have not ended themselves.
func living(pids []int) (n int) {
	for _, pid := range pids {
		if p, ok := readProcess(pid); ok && !p.dead() {
			n++
		}
	}
	return n
}

// await waits until done, which is asked with the lock held whenever something
// was reaped, or until the time, if it is not zero. It also returns when another
// attempt is wanted and the time has passed by then or there is none.
func (h *host) await(r *run, until func() time.Time, done func() bool) {
	for {
		h.mu.Lock()
		if done() {
			h.mu.Unlock()
			return
		}
		at, turn := until(), h.turns
		h.mu.Unlock()
		var late <-chan time.Time
		if !at.IsZero() {
			wait := time.Until(at)
			if wait <= 0 {
				return
			}
			late = time.After(wait)
		}
		select {
		case <-turn:
		case <-late:
		case <-r.poke:
			if at.IsZero() {
				return
			}
		}
	}
}

// report answers whoever waits for the stop, and says so in the log, as nobody
// may be waiting.
func (h *host) report(r *run, left []Survivor) {
	h.mu.Lock()
	v := r.verdict
	r.verdict = newVerdict()
	r.deadline = time.Time{}
	// Asks for what came before are answered.
	select {
	case <-r.poke:
	default:
	}
	h.mu.Unlock()
	text := (&SurvivorsError{Left: left}).Error()
	h.log.Warn(text, "run", r.mark.Run)
	if r.log != "" {
		h.stores.note(r.log, r.number, text, time.Now())
	}
	v.left = left
	close(v.done)
}

// gone reports whether nothing is left of a run.
func (h *host) gone(r *run) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.goneLocked(r) && r.group.remove()
}

func (h *host) goneLocked(r *run) bool {
	return r.clean || r.reaped && len(h.orphans(r)) == 0
}

// orphans returns our children that belong to a run, but for its main process,
// zombies included: they are reaped soon and then asked about again. The lock
// is held.
func (h *host) orphans(r *run) (pids []int) {
	for _, pid := range h.adopted() {
		if h.belongs(r, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// adopted returns our children that we did not fork. The lock is held.
func (h *host) adopted() (pids []int) {
	children := h.children()
	if h.forks > 0 {
		// A child whose exec fails is reaped by the fork itself, and the kernel may
		// then skip its neighbour in a list that is being read.
		children = append(children, h.children()...)
	}
	for _, pid := range children {
		if h.mains[pid] == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// children is ourChildren, without asking each of our threads. The lock is held.
func (h *host) children() []int {
	children, ok := childrenOfThreads(os.Getpid(), adopting(os.Getpid(), h.threads...)...)
	if !ok {
		return ourChildren()
	}
	return children
}

// belongs tells whose an adopted child is: by its number, else by its words,
// and when it carries neither it is of every run that may be its ancestor,
// unless another one of those is alive. The lock is held.
func (h *host) belongs(r *run, pid int) bool {
	if limit, ok := lockLimit(pid); ok {
		if number, ok := numberOf(r.mark.Owner, limit); ok {
			return number == r.mark.Number
		}
	}
	if runs := runsOf(r.mark.Owner, environ(pid)); len(runs) > 0 {
		return slices.Contains(runs, r.mark.Run)
	}
	if h.forks > 0 {
		return false // it may be the one being made; whoever made it is not done
	}
	p, ok := readProcess(pid)
	if !ok || p.start < r.born {
		return false
	}
	for _, other := range h.runs {
		if other != r && other.born <= p.start {
			return false
		}
	}
	return true
}

// release asks what a main process left behind to end, and gives it a moment.
// What is in the main process's group was asked with it, and keeps the grace.
func (h *host) release(r *run) {
	h.mu.Lock()
	asked := r.asked
	since := r.exit.At
	h.mu.Unlock()
	s := &sweep{of: kinOf{h, r}}
	defer s.close()
	s.look()
	s.each(func(m *member) {
		if !asked || m.group != r.pid {
			m.signal(unix.SIGTERM)
			m.signal(unix.SIGCONT)
		}
	})
	h.await(r, func() time.Time {
		if r.deadline.IsZero() {
			return since.Add(min(linger, r.grace))
		}
		short := since.Add(linger)
		if r.deadline.Before(short) || asked && h.inGroup(r) {
			return r.deadline
		}
		return short
	}, func() bool { return h.goneLocked(r) })
}

// inGroup reports whether one of the run's orphans is still in the group of its
// main process. The lock is held.
func (h *host) inGroup(r *run) bool {
	for _, pid := range h.orphans(r) {
		if group, err := unix.Getpgid(pid); err == nil && group == r.pid {
			return true
		}
	}
	return false
}

// force ends what is left of a run and returns what it could not end.
func (h *host) force(r *run) []Survivor {
	h.mu.Lock()
	if !r.reaped {
		r.exit.Forced = true
	}
	until := time.Now().Add(hardLimit)
	h.mu.Unlock()
	s := &sweep{of: kinOf{h, r}}
	defer s.close()
	h.strikeGroup(r, unix.SIGSTOP)
	r.group.kill()
	s.freeze(time.Second)
	h.strikeGroup(r, unix.SIGKILL)
	if left := s.kill(until); len(left) > 0 {
		return left
	}
	return h.empty(r, until)
}

// empty kills what is in the group of a run until nothing is, and returns what
// is there at that time.
func (h *host) empty(r *run, until time.Time) (left []Survivor) {
	for !r.group.remove() {
		pids := r.group.pids()
		if time.Now().After(until) {
			for _, pid := range pids {
				left = append(left, survivor(pid, nil))
			}
			return left
		}
		r.group.kill()
		for _, pid := range pids {
			killIn(r.group, pid)
		}
		h.pause(5 * time.Millisecond)
	}
	return nil
}

// killIn kills a process that is in the group while it is pinned.
func killIn(g *runGroup, pid int) {
	m := pin(pid)
	defer m.close()
	if slices.Contains(g.pids(), pid) {
		m.signal(unix.SIGKILL)
	}
}

// kinOf are the processes of one run.
type kinOf struct {
	*host
	run *run
}

func (k kinOf) Lock()   { k.mu.Lock() }
func (k kinOf) Unlock() { k.mu.Unlock() }

func (k kinOf) reap(map[int]*member) { k.host.reap() }

func (k kinOf) roots(map[int]*member) []int {
	roots := k.orphans(k.run)
	if !k.run.reaped {
		roots = append(roots, k.run.pid)
	}
	return roots
}

// strikeGroup signals most of a run at once, in which none of it can fork.
func (h *host) strikeGroup(r *run, sig unix.Signal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !r.reaped {
		_ = unix.Kill(-r.pid, sig)
	}
}

// pause waits for the next reaping, at most so long.
func (h *host) pause(limit time.Duration) {
	h.mu.Lock()
	turn := h.turns
	h.mu.Unlock()
	select {
	case <-turn:
	case <-time.After(limit):
	}
}
