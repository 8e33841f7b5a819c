package containerd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

const (
	// killTime is how long a container has to end after SIGKILL.
	killTime = 10 * time.Second
	// goneTime is how long it has to end by itself when the outer process has.
	goneTime = time.Second
	// memoryTime is how long the event may take that says what killed it.
	memoryTime = time.Second
)

// instance is a container that this runtime has started.
type instance struct {
	*outer.Container
	r    *Runtime
	e    *engine
	id   string
	spec runtime.Spec
	pid  int
	gone chan struct{} // closed when nothing of it runs

	mu      sync.Mutex
	asked   bool // to end
	paused  bool
	turned  chan struct{} // closed and replaced when paused changes
	starved chan struct{} // closed when the kernel has killed something of it for memory
	exit    *runtime.Exit // once it is known
}

var (
	_ runtime.Instance       = (*instance)(nil)
	_ runtime.Execer         = (*instance)(nil)
	_ runtime.HealthReporter = (*instance)(nil)
	_ runtime.Pauser         = (*instance)(nil)
)

func newInstance(r *Runtime, e *engine, id string, spec runtime.Spec, c *outer.Container, pid int) (*instance, error) {
	in := &instance{
		Container: c, r: r, e: e, id: id, spec: spec, pid: pid,
		gone: make(chan struct{}), turned: make(chan struct{}), starved: make(chan struct{}),
	}
	return in, closeAtEnd(pid, in.gone)
}

// ready returns once the main program is executed, or says why it is not.
func (in *instance) ready(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
			return
		case <-in.gone:
		}
		select {
		case <-ctx.Done(): // the outer process knew why
		case <-time.After(goneTime): // it waits in vain for somebody to come
			_ = in.Container.Stop(context.WithoutCancel(ctx), 0)
		}
	}()
	return in.Ready(ctx)
}

// Ref names the container.
func (in *instance) Ref() runtime.Ref { return ref(in.id, in.spec.ID()) }

// Info has containerd's ID, and the first process of the container.
func (in *instance) Info() runtime.Info {
	info := in.Container.Info(Name)
	info.ContainerID, info.PID = in.id, in.pid
	if over(in.gone) {
		info.PID = 0
	}
	return info
}

func over(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// Wait does not need containerd: the outer process ends as the main program did.
func (in *instance) Wait(ctx context.Context) (runtime.Exit, error) {
	exit, err := in.Container.Wait(ctx)
	if err != nil {
		return exit, err
	}
	select {
	case <-in.gone:
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
	in.mu.Lock()
	known := in.exit
	in.mu.Unlock()
	if known == nil {
		exit.Reason = in.reason(ctx, exit)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.exit == nil {
		in.exit = &exit
	}
	return *in.exit, nil
}

// reason says who or what killed it.
func (in *instance) reason(ctx context.Context, exit runtime.Exit) string {
	in.mu.Lock()
	asked := in.asked
	in.mu.Unlock()
	if exit.Signal != "SIGKILL" || asked || exit.Reason != "" {
		return exit.Reason
	}
	limited := time.Duration(0)
	if in.spec.Image.Memory > 0 {
		limited = memoryTime
	}
	select {
	case <-in.starved:
		return "killed by the kernel for memory"
	case <-time.After(limited):
	}
	if t, err := in.e.task(ctx, in.id); err == nil && t == nil {
		return "removed by someone else"
	}
	return ""
}

// Stop stops the outer process, which hands on the signal, and sees to it that
// the container has ended.
func (in *instance) Stop(ctx context.Context, grace time.Duration) error {
	in.mu.Lock()
	in.asked = true
	paused := in.paused
	in.mu.Unlock()
	if paused { // it would not hear the signal
		in.e.resume(ctx, in.id)
	}
	if err := in.Container.Stop(ctx, grace); err != nil {
		return err
	}
	return in.e.end(ctx, in.id, in.pid, in.gone)
}

// Remove deletes what the container has written and what containerd knows of it.
func (in *instance) Remove(ctx context.Context) error {
	if !over(in.gone) {
		return fmt.Errorf("%s: container %s has not ended", in.spec.ID(), in.id)
	}
	if err := errors.Join(in.Container.Remove(ctx), pid1.Remove(in.r.At(in.spec.ID()))); err != nil {
		return err
	}
	if err := in.e.discard(ctx, in.id); err != nil {
		return err
	}
	in.r.forget(in)
	return nil
}

func (in *instance) setPaused(paused bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if paused != in.paused {
		in.paused = paused
		close(in.turned)
		in.turned = make(chan struct{})
	}
}

func (in *instance) outOfMemory() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !over(in.starved) {
		close(in.starved)
	}
}

// Paused reports whether containerd was told to hold the container. It returns
// nil when the instance has ended.
func (in *instance) Paused(ctx context.Context, changed func(bool)) error {
	last, first := false, true
	for {
		in.mu.Lock()
		now, turned := in.paused, in.turned
		in.mu.Unlock()
		if first || now != last {
			changed(now)
		}
		last, first = now, false
		select {
		case <-turned:
		case <-in.gone:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// resume lets a container run that may be paused. Whether it does shows by
// itself.
func (e *engine) resume(ctx context.Context, id string) {
	_, _ = e.TaskService().Resume(ctx, &tasks.ResumeTaskRequest{ContainerID: id})
}

// end sees to it that a container has ended for which no outer process stands any
// more.
func (e *engine) end(ctx context.Context, id string, pid int, gone <-chan struct{}) error {
	kill := func() error { return nil }
	for _, patience := range []time.Duration{goneTime, killTime} {
		if err := kill(); err != nil {
			return err
		}
		select {
		case <-gone:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(patience):
		}
		kill = func() error {
			e.resume(ctx, id)
			return e.signal(ctx, id, syscall.SIGKILL)
		}
	}
	return &runtime.Survivors{Left: []runtime.Survivor{{PID: pid, Reason: fmt.Sprintf("container %s did not end within %s of SIGKILL", id, killTime)}}}
}

// signal sends one to the first process, or finds that there is none.
func (e *engine) signal(ctx context.Context, id string, sig syscall.Signal) error {
	_, err := e.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(sig), All: sig == syscall.SIGKILL})
	return e.removed(ctx, "task "+id, err)
}

// discard removes what containerd has of a container: its task, which is killed if
// need be, its record and its snapshot.
func (e *engine) discard(ctx context.Context, id string) error {
	if err := e.removed(ctx, "task "+id, e.discardTask(ctx, id)); err != nil {
		return err
	}
	if err := e.removed(ctx, "container "+id, e.ContainerService().Delete(ctx, id)); err != nil {
		return err
	}
	return e.removed(ctx, "snapshot "+id, e.SnapshotService(e.snapshotter).Remove(ctx, id))
}

// discardTask deletes a task. One whose end was waited for may still be taken for
// running, for which there is no event.
func (e *engine) discardTask(ctx context.Context, id string) error {
	limited, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	for pause := time.Duration(0); ; pause = 20 * time.Millisecond {
		_, err := e.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
		if !errdefs.IsFailedPrecondition(native(err)) {
			return err
		}
		select {
		case <-limited.Done():
			return err
		case <-time.After(pause):
		}
		e.resume(ctx, id)
		if err := e.signal(ctx, id, syscall.SIGKILL); err != nil {
			return err
		}
		if _, err := e.TaskService().Wait(limited, &tasks.WaitRequest{ContainerID: id}); err != nil {
			return err
		}
	}
}

// Attach returns the running container that ref names. One that another daemon has
// started is there to be ended.
func (r *Runtime) Attach(ctx context.Context, wanted runtime.Ref) (runtime.Instance, error) {
	e, err := r.watching(ctx)
	if err != nil {
		return nil, err
	}
	records, err := e.records(ctx, r.options.Owner)
	if err != nil {
		return nil, err
	}
	for _, c := range records {
		if ref(c.ID, runtime.RunID(c.Labels[labelRun])) != wanted {
			continue
		}
		r.mu.Lock()
		in := r.instances[c.ID]
		r.mu.Unlock()
		if in != nil && !over(in.gone) {
			return in, nil
		}
		if in == nil {
			return r.leftover(ctx, e, wanted, c.ID, c.Labels[labelStop])
		}
	}
	return nil, fmt.Errorf("%s: no container %s runs: %w", wanted.Run, wanted.ID, runtime.ErrGone)
}

// leftover is a container of an earlier daemon. Its first process hands on signals
// without any other.
type leftover struct {
	r    *Runtime
	e    *engine
	ref  runtime.Ref
	id   string
	pid  int
	stop syscall.Signal
	gone chan struct{}

	mu   sync.Mutex
	exit *runtime.Exit
}

func (r *Runtime) leftover(ctx context.Context, e *engine, of runtime.Ref, id, stop string) (runtime.Instance, error) {
	before, err := e.task(ctx, id)
	if err != nil {
		return nil, err
	}
	l := &leftover{r: r, e: e, ref: of, id: id, pid: int(before.GetPid()), stop: signalOf(stop), gone: make(chan struct{})}
	if alive(before) {
		err = closeAtEnd(l.pid, l.gone)
	}
	// Asked again, so that the number was its own when it was looked at.
	var now *tasktypes.Process
	if err == nil {
		now, err = e.task(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	if !alive(now) {
		return nil, fmt.Errorf("%s: container %s has ended: %w", of.Run, id, runtime.ErrGone)
	}
	return l, nil
}

// Ref names the container.
func (l *leftover) Ref() runtime.Ref { return l.ref }

// Info has what is still to be seen.
func (l *leftover) Info() runtime.Info {
	return runtime.Info{PID: l.pid, ContainerID: l.id, Engine: Name}
}

// Wait asks containerd how it ended.
func (l *leftover) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-l.gone:
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.exit == nil {
		l.exit = &runtime.Exit{At: time.Now()}
		if t, err := l.e.task(ctx, l.id); err == nil && t.GetStatus() == tasktypes.Status_STOPPED {
			*l.exit = outer.Exit(int(t.ExitStatus), t.ExitedAt.AsTime())
		}
	}
	return *l.exit, nil
}

// Stop asks, and kills after grace.
func (l *leftover) Stop(ctx context.Context, grace time.Duration) error {
	if over(l.gone) {
		return nil
	}
	l.e.resume(ctx, l.id)
	if err := l.e.signal(ctx, l.id, l.stop); err != nil {
		return err
	}
	select {
	case <-l.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(grace):
	}
	if err := l.e.signal(ctx, l.id, syscall.SIGKILL); err != nil {
		return err
	}
	return l.e.end(ctx, l.id, l.pid, l.gone)
}

// Remove deletes what is left of it.
func (l *leftover) Remove(ctx context.Context) error {
	return errors.Join(pid1.Remove(l.r.At(l.ref.Run)), l.e.discard(ctx, l.id))
}
