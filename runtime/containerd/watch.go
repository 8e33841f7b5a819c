package containerd

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/containerd/containerd/api/events"
	tasktypes "github.com/containerd/containerd/api/types/task"
	coreevents "github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"github.com/locald/locald/runtime"
)

// pulse is how often containerd is asked for a sign of life while containers of
// ours are in it: one that hangs breaks no connection.
const pulse = 1500 * time.Millisecond

// watch is the state of the one event stream.
type watch struct {
	kick chan struct{} // try again now

	mu       sync.Mutex
	up       bool
	attempts int // that failed
	err      error
	changed  chan struct{} // closed and replaced with every change
}

// watching returns the engine with its events subscribed to.
func (r *Runtime) watching(ctx context.Context) (*engine, error) {
	e, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	if r.watch == nil {
		w := &watch{kick: make(chan struct{}, 1), changed: make(chan struct{})}
		r.watch = w
		r.running.Go(func() { r.follow(e, w) })
	}
	w := r.watch
	r.mu.Unlock()
	return e, w.await(ctx, r.life)
}

// await returns once the stream is there, or with the error of the next attempt to
// get it.
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
			err = &runtime.Fault{Code: "engine_unavailable", Err: errClosed, Kind: runtime.ErrUnavailable}
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
	const shortest, longest = 50 * time.Millisecond, time.Second / 2
	pause, seen := shortest, false
	for {
		err := r.subscribe(e, func() {
			if w.set(nil) && seen {
				r.options.Away(nil)
			}
			seen, pause = true, shortest
		})
		if r.life.Err() != nil {
			return
		}
		if w.set(err) {
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

// subscribe reads events until the stream breaks. It subscribes before it looks,
// so that what happens in between is seen at least once.
func (r *Runtime) subscribe(e *engine, up func()) error {
	ctx, cancel := context.WithCancelCause(r.life)
	defer cancel(nil)
	patience := time.AfterFunc(answerTime, func() { cancel(errHangs) })
	heard, broken := e.Subscribe(ctx, "namespace=="+Namespace+`,topic~="^/tasks/(oom|paused|resumed)$"`)
	err := r.resync(ctx, e)
	patience.Stop()
	if err != nil {
		return err
	}
	up()
	go r.listen(ctx, e, func() { cancel(errHangs) })
	for {
		select {
		case event := <-heard:
			r.event(event)
		case err := <-broken:
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return e.lost(ctx, err)
		case <-ctx.Done():
			return e.lost(ctx, ctx.Err())
		}
	}
}

// lost is why there are no events any more, which is always containerd's absence.
func (e *engine) lost(ctx context.Context, err error) error {
	if err = e.fault(ctx, "events", err); errors.Is(err, runtime.ErrUnavailable) {
		return err
	}
	return e.unavailable("does not answer: "+err.Error(), hintRestart)
}

// listen calls hangs when containerd gives no sign of life.
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
		asking, cancel := context.WithTimeout(ctx, answerTime/2)
		_, err := e.Version(asking)
		hung := asking.Err() != nil
		cancel()
		if err != nil && hung && ctx.Err() == nil {
			hangs()
			return
		}
	}
}

func (r *Runtime) event(envelope *coreevents.Envelope) {
	said, err := typeurl.UnmarshalAny(envelope.Event)
	if err != nil {
		return // of a kind that did not exist when this was written
	}
	switch event := said.(type) {
	case *events.TaskOOM:
		if in := r.tracked()[event.ContainerID]; in != nil {
			in.outOfMemory()
		}
	case *events.TaskPaused:
		if in := r.tracked()[event.ContainerID]; in != nil {
			in.setPaused(true)
		}
	case *events.TaskResumed:
		if in := r.tracked()[event.ContainerID]; in != nil {
			in.setPaused(false)
		}
	}
}

// resync asks what events may have told meanwhile.
func (r *Runtime) resync(ctx context.Context, e *engine) error {
	found, err := e.tasks(ctx)
	if err != nil {
		return err
	}
	for id, in := range r.tracked() {
		if t := found[id]; t != nil {
			in.setPaused(t.Status == tasktypes.Status_PAUSED)
		}
	}
	return nil
}

// track makes the events of a container reach its instance.
func (r *Runtime) track(in *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances[in.id] = in
}

func (r *Runtime) forget(in *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, in.id)
}

func (r *Runtime) tracked() map[string]*instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.instances)
}
