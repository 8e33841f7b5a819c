package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/locald/locald/runtime"
)

// The labels of containers, networks and volumes.
const (
	labelPrefix   = "dev.locald."
	labelInstance = labelPrefix + "instance" // the Owner
	labelProject  = labelPrefix + "project"  // the project's name
	labelDir      = labelPrefix + "dir"
	labelService  = labelPrefix + "service"
	labelRun      = labelPrefix + "run"     // the RunID
	labelNetwork  = labelPrefix + "network" // of a container: the network it belongs to
	labelVolume   = labelPrefix + "volume"  // of a volume: its name in the configuration

	// Of an image. Containers inherit the labels of their image, those that others
	// make of it too, which therefore must not have the labels above.
	labelBuilt         = labelPrefix + "built" // what it was built from: a digest
	labelBuiltInstance = labelBuilt + ".instance"
	labelBuiltProject  = labelBuilt + ".project"
	labelBuiltDir      = labelBuilt + ".dir"
	labelBuiltService  = labelBuilt + ".service"
)

// Options say for whom and through what a Runtime works.
type Options struct {
	Owner  runtime.Owner
	Engine string // "auto" (or empty), "docker", "podman"

	// Streams opens the far ends of a run's output: what is written to them is
	// in the log store of logDir. The runtime closes them at the end of the
	// output. nil throws output away, as an empty Spec.Log does.
	Streams func(logDir string, run int) (stdout, stderr *os.File, err error)

	// Flush waits until what was written to a run's streams is in the log
	// store; nil when nobody needs to wait.
	Flush func(ctx context.Context, logDir string, run int) error

	// Note puts a sentence about a run into its log; nil: nobody reads.
	Note func(logDir string, run int, text string)

	// Away is told when the engine that was in use goes away, and with nil
	// when it is back. Calls do not overlap. nil is nobody.
	Away func(error)

	// Keeps reports whether a run is one that the caller keeps at the moment, in
	// whatever engine. What was asked of an engine by a daemon that was killed
	// meanwhile may come after everything was swept: a container of the owner's
	// that appears and is of no such run is removed. nil keeps all.
	Keeps func(run runtime.RunID) bool

	// Getenv is os.Getenv when nil.
	Getenv func(string) string
}

// Runtime runs services as containers of one engine. It looks for the engine
// when one is first needed and stays with it.
//
// When the engine goes away nothing is concluded for instances: Wait goes on
// waiting, everything else says runtime.ErrUnavailable, and what happened
// meanwhile is found out when it is back.
type Runtime struct {
	options  Options
	life     context.Context
	end      context.CancelCauseFunc
	running  sync.WaitGroup // every goroutine of the runtime
	dialing  singleflight.Group
	networks networks
	reach    reach
	building turns

	mu        sync.Mutex
	engine    *engine // nil until one has answered
	watch     *watch
	instances map[string]*instance // by container ID
	lost      map[runtime.RunID]bool
	listed    time.Time // when List was last asked: what was there by then is its caller's to end
}

// New returns a runtime that has not looked for an engine yet. Close ends it.
func New(options Options) *Runtime {
	options.Engine = cmp.Or(options.Engine, nameAuto)
	if options.Getenv == nil {
		options.Getenv = os.Getenv
	}
	if options.Away == nil {
		options.Away = func(error) {}
	}
	r := &Runtime{
		options:   options,
		instances: map[string]*instance{},
		lost:      map[runtime.RunID]bool{},
	}
	r.life, r.end = context.WithCancelCause(context.Background())
	r.networks.use = map[string]*networkUse{}
	r.reach.forwards = map[string]*forward{}
	r.building.taken = map[string]chan struct{}{}
	return r
}

// Close ends everything the runtime does itself and leaves containers alone.
// Instances of a closed runtime answer with runtime.ErrUnavailable.
func (r *Runtime) Close() error {
	r.end(errClosed)
	r.running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.engine == nil {
		return nil
	}
	return r.engine.cli.Close()
}

// Kind is runtime.Container.
func (r *Runtime) Kind() runtime.Kind { return runtime.Container }

// Engine is the name of the engine in use, "docker" or "podman", or empty
// while none has been needed.
func (r *Runtime) Engine() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.engine == nil {
		return ""
	}
	return r.engine.name
}

// Host is the address of the engine in use ("unix:///var/run/docker.sock"), or
// empty while none has been needed. ExecTTY takes it.
func (r *Runtime) Host() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.engine == nil {
		return ""
	}
	return r.engine.place.host
}

// At is where a client finds the container of a run: Host, for every run.
func (r *Runtime) At(runtime.RunID) string { return r.Host() }

// Ping looks for the engine if none is in use, and asks whether it is there.
func (r *Runtime) Ping(ctx context.Context) error {
	e, err := r.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errHangs)
	defer cancel()
	return e.fault(ctx, "ping", e.ping(ctx))
}

// connect returns the engine. Those who ask while it is looked for share one
// answer; a failure is not kept.
func (r *Runtime) connect(ctx context.Context) (*engine, error) {
	if r.life.Err() != nil {
		return nil, closed()
	}
	if e := r.connected(); e != nil {
		return e, nil
	}
	result := r.dialing.DoChan("", func() (any, error) {
		if e := r.connected(); e != nil {
			return e, nil
		}
		e, err := find(r.life, r.options.Getenv, r.options.Engine)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.engine = e
		return e, nil
	})
	select {
	case found := <-result:
		if found.Err != nil {
			return nil, found.Err
		}
		return found.Val.(*engine), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *Runtime) connected() *engine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.engine
}

// watching returns the engine with its events subscribed to, so that no exit
// is missed from here on.
func (r *Runtime) watching(ctx context.Context) (*engine, error) {
	e, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	if r.watch == nil {
		w := newWatch()
		r.watch = w
		r.running.Go(func() { r.follow(e, w) })
	}
	w := r.watch
	r.mu.Unlock()
	return e, w.await(ctx, r.life)
}

func closed() error {
	return kind{errClosed.Error(), runtime.ErrUnavailable}
}

// List returns the containers of owner that run, or are paused. What has ended
// and was not removed is for Sweep.
func (r *Runtime) List(ctx context.Context, owner runtime.Owner) ([]runtime.Ref, error) {
	e, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.listed = time.Now()
	r.mu.Unlock()
	found, err := e.list(ctx, labelInstance+"="+string(owner))
	if err != nil {
		return nil, err
	}
	var refs []runtime.Ref
	for _, c := range found {
		if e.alive(c.State) {
			refs = append(refs, e.ref(c.ID, runtime.RunID(c.Labels[labelRun])))
		}
	}
	return refs, nil
}

func (e *engine) ref(id string, run runtime.RunID) runtime.Ref {
	return runtime.Ref{Kind: runtime.Container, Run: run, ID: e.name + ":" + id}
}

// Attach returns the running container that ref names. Its output is not read:
// what it wrote before is with the daemon that started it.
func (r *Runtime) Attach(ctx context.Context, ref runtime.Ref) (runtime.Instance, error) {
	name, id, ok := strings.Cut(ref.ID, ":")
	if !ok || ref.Kind != runtime.Container {
		return nil, fmt.Errorf("%s %q is not a container: %w", ref.Run, ref.ID, runtime.ErrGone)
	}
	e, err := r.watching(ctx)
	if err != nil {
		return nil, err
	}
	if name != e.name {
		return nil, fmt.Errorf("%s ran in %s, and the engine in use is %s: %w", ref.Run, name, e.name, runtime.ErrUnavailable)
	}
	found, err := e.inspect(ctx, id)
	if e.notFound(err) {
		return nil, fmt.Errorf("%s: no container %s: %w", ref.Run, short(id), runtime.ErrGone)
	}
	if err != nil {
		return nil, err
	}
	if found.Config.Labels[labelRun] != string(ref.Run) || !e.alive(found.State.Status) {
		return nil, fmt.Errorf("%s: container %s has ended: %w", ref.Run, short(id), runtime.ErrGone)
	}
	i := newInstance(r, e, found.ID, ref.Run)
	close(i.output)
	i.show(found)
	if known := r.track(i); known != i {
		return known, nil
	}
	if network := found.Config.Labels[labelNetwork]; network != "" {
		i.releases(r.networks.hold(e, network))
	}
	return i, i.recheck(ctx)
}

// track makes the events of a container reach its instance, and returns the
// one that is there already if there is one.
func (r *Runtime) track(i *instance) *instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.instances[i.id]; ok {
		return known
	}
	r.instances[i.id] = i
	return i
}

// lose remembers a run of which the engine may have a container although its
// start failed. It is removed when the engine is next seen to have it.
func (r *Runtime) lose(run runtime.RunID, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if is {
		r.lost[run] = true
	} else {
		delete(r.lost, run)
	}
}

func (r *Runtime) isLost(run runtime.RunID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost[run]
}

func (r *Runtime) forget(i *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, i.id)
}

func (r *Runtime) tracked() map[string]*instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.instances)
}

// Sweep removes what the owner still has in the engine and nothing uses:
// containers that have ended or never started, and networks without
// containers. Volumes stay. It is meant for the start of a daemon, after what
// List found has been ended.
func (r *Runtime) Sweep(ctx context.Context) error {
	e, err := r.connect(ctx)
	if err != nil {
		return err
	}
	mine := labelInstance + "=" + string(r.options.Owner)
	found, err := e.list(ctx, mine)
	if err != nil {
		return err
	}
	known := r.tracked()
	var problems []error
	for _, c := range found {
		if known[c.ID] == nil && !e.alive(c.State) {
			problems = append(problems, e.remove(ctx, c.ID))
		}
	}
	problems = append(problems, r.networks.sweep(ctx, e, mine))
	return errors.Join(problems...)
}
