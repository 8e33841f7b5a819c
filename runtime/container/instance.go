package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/locald/locald/runtime"
)

// killTime is how long the engine has to end a container after SIGKILL.
const killTime = 10 * time.Second

// instance is one container. What happens to it is told by the watch.
type instance struct {
	r   *Runtime
	e   *engine
	id  string
	run runtime.RunID

	ended  chan struct{} // closed when exit is set
	output chan struct{} // closed when all output has been handed over

	mu         sync.Mutex
	info       runtime.Info
	exit       runtime.Exit
	stopSignal string
	asked      bool // to end
	killed     bool
	deadline   time.Time     // of the stop that is under way
	earlier    chan struct{} // closed and replaced when deadline comes nearer
	oom        bool
	seen       bool // to end, by an event
	health     runtime.Health
	paused     bool
	turned     chan struct{} // closed and replaced when health or paused changes
	release    []func(context.Context) error
}

var (
	_ runtime.Instance       = (*instance)(nil)
	_ runtime.Execer         = (*instance)(nil)
	_ runtime.HealthReporter = (*instance)(nil)
	_ runtime.Pauser         = (*instance)(nil)
)

func newInstance(r *Runtime, e *engine, id string, run runtime.RunID) *instance {
	return &instance{
		r: r, e: e, id: id, run: run,
		ended: make(chan struct{}), output: make(chan struct{}),
		earlier: make(chan struct{}), turned: make(chan struct{}),
		info: runtime.Info{ContainerID: id, Engine: e.name},
	}
}

// Ref names the container by engine and ID.
func (i *instance) Ref() runtime.Ref { return i.e.ref(i.id, i.run) }

// Info has the PID only where the container's processes are visible on this
// host, which they are not when the engine runs in a virtual machine.
func (i *instance) Info() runtime.Info {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.info
}

// show takes over what an inspection says of a running container.
func (i *instance) show(found container.InspectResponse) {
	i.mu.Lock()
	i.info.Healthcheck = checked(found)
	i.info.PID = visible(found.State.Pid, i.id)
	i.stopSignal = found.Config.StopSignal
	i.mu.Unlock()
	if found.State.Health != nil {
		i.setHealth(string(found.State.Health.Status))
	}
}

// checked reports whether the container has a health check. Podman shows a
// health of those that have none, too.
func checked(found container.InspectResponse) bool {
	check := found.Config.Healthcheck
	return found.State.Health != nil && check != nil && len(check.Test) > 0 && check.Test[0] != "NONE"
}

// visible returns pid if it is a process of the container here and not in a
// virtual machine.
func visible(pid int, id string) int {
	if goruntime.GOOS != "linux" || pid <= 0 {
		return 0
	}
	groups, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil || !strings.Contains(string(groups), id) {
		return 0
	}
	return pid
}

// state asks the engine for the container's state.
func (i *instance) state(ctx context.Context) (*container.State, error) {
	found, err := i.e.inspect(ctx, i.id)
	if err != nil {
		return nil, err
	}
	return found.State, nil
}

// recheck asks the engine instead of waiting for an event.
func (i *instance) recheck(ctx context.Context) error {
	state, err := i.state(ctx)
	switch {
	case i.e.notFound(err):
		i.finish(runtime.Exit{At: time.Now(), Reason: removedByOther})
		return nil
	case err != nil:
		return err
	case state.Health != nil:
		i.setHealth(string(state.Health.Status))
	}
	if i.e.alive(state.Status) || state.Status == container.StateCreated {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, state.FinishedAt)
	if err != nil {
		at = time.Now()
	}
	exit := exitOf(state.ExitCode, at)
	if state.OOMKilled {
		exit.Reason = outOfMemory
	}
	i.finish(exit)
	return nil
}

// exitOf reads an exit code as a shell does: above 128 it is a signal's.
// Engines do not say which of the two it was.
func exitOf(code int, at time.Time) runtime.Exit {
	exit := runtime.Exit{Known: true, Code: code, At: at}
	if code > 128 && code < 160 {
		exit.Signal = unix.SignalName(syscall.Signal(code - 128))
	}
	return exit
}

func (i *instance) finish(exit runtime.Exit) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.hasEnded() {
		return
	}
	if i.oom && exit.Reason == "" && exit.Signal == "SIGKILL" && !i.killed {
		exit.Reason = outOfMemory
	}
	i.exit, i.info.PID = exit, 0
	close(i.ended)
}

func (i *instance) hasEnded() bool {
	select {
	case <-i.ended:
		return true
	default:
		return false
	}
}

func (i *instance) outOfMemory() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.oom = true
}

// sawEnd notes that the event of the end has come.
func (i *instance) sawEnd() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seen = true
}

func (i *instance) wasSeen() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.seen
}

// wasAsked reports whether the stop signal was sent, by us.
func (i *instance) wasAsked() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// outlasts reports whether nobody has settled the end of the instance when the
// time is over.
func (i *instance) outlasts(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-i.ended:
		return false
	case <-i.r.life.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (i *instance) wasKilled() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.killed
}

// Wait goes on through an absence of the engine.
func (i *instance) Wait(ctx context.Context) (runtime.Exit, error) {
	for _, done := range []chan struct{}{i.ended, i.output} {
		select {
		case <-done:
			continue
		default:
		}
		select {
		case <-done:
		case <-ctx.Done():
			return runtime.Exit{}, ctx.Err()
		case <-i.r.life.Done():
			return runtime.Exit{}, closed()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.exit, nil
}

// Stop signals the container's first process, and kills the container when
// grace is over. It returns when the engine has taken everything down, the
// published ports included.
func (i *instance) Stop(ctx context.Context, grace time.Duration) error {
	if err := i.ask(ctx); err != nil {
		return err
	}
	i.hasten(time.Now().Add(grace))
	if err := i.expire(ctx); err != nil {
		return err
	}
	if !i.hasEnded() {
		if err := i.kill(ctx); err != nil {
			return err
		}
	}
	if err := i.e.settle(ctx, i.id, container.WaitConditionNotRunning); err != nil {
		return err
	}
	_, err := i.Wait(ctx)
	return err
}

// ask sends the stop signal, once however often it is called.
func (i *instance) ask(ctx context.Context) error {
	i.mu.Lock()
	first := !i.asked && !i.hasEnded()
	i.asked = true
	signal := i.stopSignal
	i.mu.Unlock()
	if !first {
		return nil
	}
	if signal == "" {
		signal = "SIGTERM"
	}
	// The stop is under way for everybody else, whatever becomes of this caller.
	err := i.signal(context.WithoutCancel(ctx), signal)
	if err != nil {
		i.mu.Lock()
		i.asked = false
		i.mu.Unlock()
	}
	return err
}

// signal sends one, or finds that there is nobody left to send it to.
func (i *instance) signal(ctx context.Context, name string) error {
	ctx, done := i.e.watched(ctx)
	defer done()
	_, err := i.e.cli.ContainerKill(ctx, i.id, client.ContainerKillOptions{Signal: name})
	if i.e.notFound(err) || i.e.conflict(err) {
		return i.recheck(ctx)
	}
	return i.e.fault(ctx, "signal "+short(i.id), err)
}

// hasten moves the deadline of all who wait for the end, never away.
func (i *instance) hasten(deadline time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.deadline.IsZero() && !deadline.Before(i.deadline) {
		return
	}
	i.deadline = deadline
	close(i.earlier)
	i.earlier = make(chan struct{})
}

// expire waits for the end or the deadline.
func (i *instance) expire(ctx context.Context) error {
	for {
		i.mu.Lock()
		deadline, earlier := i.deadline, i.earlier
		i.mu.Unlock()
		timer := time.NewTimer(time.Until(deadline))
		select {
		case <-i.ended:
			timer.Stop()
			return nil
		case <-timer.C:
			return nil
		case <-earlier:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-i.r.life.Done():
			timer.Stop()
			return closed()
		}
	}
}

// kill ends the container by force and waits for it.
func (i *instance) kill(ctx context.Context) error {
	i.mu.Lock()
	i.killed = true
	i.mu.Unlock()
	if err := i.signal(ctx, "SIGKILL"); err != nil {
		return err
	}
	timer := time.NewTimer(killTime)
	defer timer.Stop()
	select {
	case <-i.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-i.r.life.Done():
		return closed()
	case <-timer.C:
	}
	if err := i.recheck(ctx); err != nil || i.hasEnded() {
		return err
	}
	return &runtime.Survivors{Left: []runtime.Survivor{{
		PID: i.Info().PID, Reason: fmt.Sprintf("container %s did not end within %s of SIGKILL", short(i.id), killTime),
	}}}
}

// Remove deletes the container with its anonymous volumes, never named ones,
// and the project's network when it was the last container there.
func (i *instance) Remove(ctx context.Context) error {
	if !i.hasEnded() {
		return fmt.Errorf("%s: container %s has not ended", i.run, short(i.id))
	}
	if err := i.e.remove(ctx, i.id); err != nil {
		return err
	}
	i.r.forget(i)
	i.mu.Lock()
	release := i.release
	i.release = nil
	i.mu.Unlock()
	var problems []error
	for _, f := range release {
		problems = append(problems, f(ctx))
	}
	return errors.Join(problems...)
}

// releases adds to what Remove gives back.
func (i *instance) releases(f func(context.Context) error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.release = append(i.release, f)
}

func (i *instance) setHealth(status string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	health := runtime.Health(status)
	switch health {
	case runtime.HealthStarting, runtime.Healthy, runtime.Unhealthy:
	default:
		return
	}
	if health == i.health {
		return
	}
	i.health = health
	i.turn()
}

func (i *instance) setPaused(paused bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if paused != i.paused {
		i.paused = paused
		i.turn()
	}
}

// turn wakes who follows. The lock is held.
func (i *instance) turn() {
	close(i.turned)
	i.turned = make(chan struct{})
}

// Health reports what the engine's own check finds. It returns nil when the
// instance has ended.
func (i *instance) Health(ctx context.Context, changed func(runtime.Health)) error {
	if !i.Info().Healthcheck {
		return fmt.Errorf("%s: the image has no health check", i.run)
	}
	var last runtime.Health
	return i.follow(ctx, func(now runtime.Health, _ bool) {
		if now != last && now != "" {
			changed(now)
			last = now
		}
	})
}

// Paused reports whether the engine was told to hold the container. It returns
// nil when the instance has ended.
func (i *instance) Paused(ctx context.Context, changed func(bool)) error {
	last, first := false, true
	return i.follow(ctx, func(_ runtime.Health, now bool) {
		if first || now != last {
			changed(now)
		}
		last, first = now, false
	})
}

// follow calls look with what is the case now, and again when that has changed,
// until the instance has ended.
func (i *instance) follow(ctx context.Context, look func(health runtime.Health, paused bool)) error {
	for {
		i.mu.Lock()
		health, paused, next := i.health, i.paused, i.turned
		i.mu.Unlock()
		look(health, paused)
		select {
		case <-next:
		case <-i.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-i.r.life.Done():
			return closed()
		}
	}
}
