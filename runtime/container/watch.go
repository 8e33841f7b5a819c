package container

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// resyncTime is how often everything is listed although no event said
// anything: event streams drop.
const resyncTime = 30 * time.Second

// pulse is how often the engine is asked for a sign of life while containers of
// ours are in it. One that hangs breaks no connection: with pingTime, it is
// known within 5 seconds.
const pulse = 1500 * time.Millisecond

// replay is how much of the past is asked for with a subscription. The engine
// answers before it has subscribed.
const replay = time.Second

// errBroke is the error of a stream that an engine has ended which is there.
// Podman does that at times. The next one tells what happened in between.
var errBroke = errors.New("the engine ended the stream of its events")

// watch is the state of the one event stream.
type watch struct {
	kick chan struct{} // try again now

	mu       sync.Mutex
	up       bool
	attempts int // that failed
	err      error
	changed  chan struct{} // closed and replaced with every change
}

func newWatch() *watch {
	return &watch{kick: make(chan struct{}, 1), changed: make(chan struct{})}
}

// await returns once the stream is there, or with the error of the next
// attempt to get it.
func (w *watch) await(ctx, life context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.attempts
	for !w.up {
		if w.attempts > before {
			return w.err
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case w.kick <- struct{}{}:
		default:
		}
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		case <-life.Done():
			err = closed()
		}
		w.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// set records a change of fortune and reports whether it was one.
func (w *watch) set(err error) (news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	news = w.up != (err == nil)
	w.up, w.err = err == nil, err
	if err != nil {
		w.attempts++
	}
	close(w.changed)
	w.changed = make(chan struct{})
	return news
}

// follow keeps the event stream up until the runtime is closed.
func (r *Runtime) follow(e *engine, w *watch) {
	const shortest, longest = 50 * time.Millisecond, 2 * time.Second
	pause := shortest
	seen := false
	for {
		err := r.subscribe(e, func() {
			if w.set(nil) && seen {
				r.options.Away(nil)
			}
			seen = true
			pause = shortest
		})
		if r.life.Err() != nil {
			return
		}
		if !errors.Is(err, errBroke) && w.set(err) {
			r.options.Away(err)
		}
		select {
		case <-time.After(pause):
		case <-w.kick:
		case <-r.life.Done():
			return
		}
		pause = min(pause*2, longest)
	}
}

// subscribe reads events until the stream breaks. It subscribes before it
// lists, so that what happens in between is seen at least once.
func (r *Runtime) subscribe(e *engine, up func()) error {
	ctx, cancel := context.WithCancelCause(r.life)
	defer cancel(nil)
	patience := time.AfterFunc(answerTime, func() { cancel(errHangs) })
	since := time.Now().Add(-replay)
	stream := e.cli.Events(ctx, client.EventsListOptions{Since: unixNano(since), Filters: e.dialect.events})
	patience.Stop()
	if err := r.resync(ctx, e); err != nil {
		return err
	}
	up()
	go r.listen(ctx, e, func() { cancel(errHangs) })
	tick := time.NewTicker(resyncTime)
	defer tick.Stop()
	for {
		select {
		case m := <-stream.Messages:
			r.event(e, m)
		case err := <-stream.Err:
			if e.ping(ctx) == nil {
				return errBroke
			}
			return e.fault(ctx, "events", errOr(err))
		case <-ctx.Done():
			return e.fault(ctx, "events", ctx.Err())
		case <-tick.C:
			if err := r.resync(ctx, e); err != nil {
				return err
			}
		}
	}
}

// listen calls hangs when the engine gives no sign of life.
func (r *Runtime) listen(ctx context.Context, e *engine, hangs func()) {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if len(r.tracked()) == 0 {
			continue
		}
		// An engine that has gone breaks the stream itself.
		if err := e.ping(ctx); errors.Is(err, context.DeadlineExceeded) {
			hangs()
			return
		}
	}
}

func unixNano(t time.Time) string {
	return strconv.FormatInt(t.Unix(), 10) + "." + nine(t.Nanosecond())
}

func nine(n int) string {
	digits := strconv.Itoa(n)
	return strings.Repeat("0", 9-len(digits)) + digits
}

func (r *Runtime) event(e *engine, m events.Message) {
	i := r.tracked()[m.Actor.ID]
	if i == nil {
		if m.Action == events.ActionCreate || m.Action == events.ActionStart {
			r.appeared(e, m.Actor, time.Unix(0, m.TimeNano))
		}
		return
	}
	at := time.Unix(0, m.TimeNano)
	action := string(m.Action)
	switch {
	case action == "oom":
		i.outOfMemory()
	case action == "die":
		i.sawEnd()
		code, err := strconv.Atoi(m.Actor.Attributes["exitCode"])
		r.died(i, exitOf(code, at), err == nil)
	case action == e.dialect.removed:
		i.sawEnd()
		i.finish(runtime.Exit{At: at, Reason: removedByOther})
	case action == "pause", action == "unpause":
		i.setPaused(action == "pause")
	case strings.HasPrefix(action, "health_status"):
		_, status, _ := strings.Cut(action, ": ")
		if status == "" { // Podman tells what it was before
			r.running.Go(func() { _ = i.recheck(r.life) })
			return
		}
		i.setHealth(status)
	}
}

// appeared removes a container that a daemon which is gone had asked for.
func (r *Runtime) appeared(e *engine, c events.Actor, at time.Time) {
	owner, run := c.Attributes[labelInstance], runtime.RunID(c.Attributes[labelRun])
	r.mu.Lock()
	seen := at.Before(r.listed)
	r.mu.Unlock()
	_, _, _, ours := run.Split() // what somebody else gave our label is theirs to look at
	if seen || !ours || r.options.Keeps == nil || owner != string(r.options.Owner) || r.options.Keeps(run) {
		return
	}
	r.running.Go(func() {
		if err := e.remove(r.life, c.ID); err == nil && c.Attributes[labelNetwork] != "" {
			_ = r.networks.drop(r.life, e, c.Attributes[labelNetwork]) // one that is in use stays
		}
	})
}

const (
	removedByOther = "removed by someone else"
	outOfMemory    = "killed by the kernel for memory"
)

// removalTime is how long after its end a container may be removed as a part of
// the same.
const removalTime = time.Second

// momentTime is how long a removal may be between two of its steps, when the
// container looks as if it had ended by itself. An engine that is asked during a
// step answers when the removal is over.
const momentTime = 300 * time.Millisecond

// removalOf is how long to wait for a removal that may have brought an end about.
func removalOf(e *engine, now container.ContainerState, exit runtime.Exit) time.Duration {
	if e.alive(now) || exit.Signal != "" {
		return removalTime
	}
	return momentTime
}

// died settles how an instance ended. Only an end that was not ours, and may be
// part of a removal, needs another look: at who or what brought it about.
func (r *Runtime) died(i *instance, exit runtime.Exit, known bool) {
	exit.Known = known
	removal := i.e.dialect.asksFirst && !i.wasAsked()
	if known && !removal && (exit.Signal != "SIGKILL" || i.wasKilled()) {
		i.finish(exit)
		return
	}
	r.running.Go(func() {
		state, err := i.state(r.life)
		if err == nil && removal {
			if !i.outlasts(removalOf(i.e, state.Status, exit)) {
				return
			}
			state, err = i.state(r.life)
		}
		switch {
		case i.e.notFound(err), err == nil && (state.Status == container.StateRemoving || state.Dead):
			exit.Reason = removedByOther
			exit.Known = exit.Code != 0 // it ended well because it was asked to, and not because it was done
		case err != nil: // the event said enough
		case !known:
			exit = exitOf(state.ExitCode, exit.At)
		}
		if err == nil && state.OOMKilled {
			exit.Reason = outOfMemory
		}
		i.finish(exit)
	})
}

// resync compares what is tracked with what the engine has.
func (r *Runtime) resync(ctx context.Context, e *engine) error {
	tracked := r.tracked() // first, so that each of these must be in the list
	found, err := e.list(ctx, labelInstance)
	if err != nil {
		return err
	}
	there := make(map[string]container.Summary, len(found))
	for _, c := range found {
		there[c.ID] = c
		if tracked[c.ID] == nil {
			if err := r.clearLost(ctx, e, c); err != nil {
				return err
			}
		}
	}
	for id, i := range tracked {
		c, ok := there[id]
		if !ok {
			i.finish(runtime.Exit{At: time.Now(), Reason: removedByOther})
			continue
		}
		i.setPaused(c.State == container.StatePaused)
		if i.hasEnded() || e.alive(c.State) && !i.Info().Healthcheck || c.State == container.StateCreated {
			continue
		}
		if err := i.recheck(ctx); err != nil {
			return err
		}
	}
	return nil
}

// clearLost removes a container, and its network, if its start was given up.
func (r *Runtime) clearLost(ctx context.Context, e *engine, c container.Summary) error {
	run := runtime.RunID(c.Labels[labelRun])
	if !r.isLost(run) {
		return nil
	}
	if err := e.remove(ctx, c.ID); err != nil {
		return err
	}
	r.lose(run, false)
	if network := c.Labels[labelNetwork]; network != "" {
		return r.networks.drop(ctx, e, network)
	}
	return nil
}
