package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"

	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

// The labels of containers and snapshots, as runtime/container has them.
const (
	labelPrefix   = "dev.locald."
	labelInstance = labelPrefix + "instance" // the Owner
	labelProject  = labelPrefix + "project"  // the project's name
	labelDir      = labelPrefix + "dir"
	labelService  = labelPrefix + "service"
	labelRun      = labelPrefix + "run" // the RunID

	// labelStop is the one by which clients of containerd know the stop signal.
	labelStop = "io.containerd.image.config.stop-signal"
)

// Options say for whom and through what a Runtime works.
type Options struct {
	Owner   runtime.Owner
	Dir     string          // of the state: volumes and networks are below it
	Process runtime.Runtime // runs what stands beside each container
	Images  oci.Options     // how registries are spoken to

	// Program is argv of a locald, and Init the file of one that needs no
	// libraries, which is the first process of each container. Empty is this
	// program.
	Program []string
	Init    string

	// Away is told when the containerd that was in use goes away, and with nil
	// when it is back. Calls do not overlap. nil is nobody.
	Away func(error)

	// Getenv is os.Getenv when nil.
	Getenv func(string) string
}

// Runtime runs services as containers of containerd, which it looks for when it
// is first needed. Its methods may be called concurrently.
//
// When containerd goes away its containers run on, and Wait, Stop and Exec of
// instances work: they do not need it. Everything else says
// runtime.ErrUnavailable.
type Runtime struct {
	options Options
	life    context.Context
	end     context.CancelFunc
	running sync.WaitGroup

	dialing sync.Mutex
	pulls   outer.Pulls[struct{}]

	mu        sync.Mutex
	engine    *engine // nil until one has answered
	watch     *watch
	instances map[string]*instance // by container ID
}

// engine is a containerd that has answered.
type engine struct {
	place
	*client.Client
	snapshotter string
}

// New returns a runtime that has not looked for containerd yet. Close ends it.
func New(o Options) *Runtime {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Away == nil {
		o.Away = func(error) {}
	}
	r := &Runtime{options: o, instances: map[string]*instance{}}
	r.life, r.end = context.WithCancel(namespaces.WithNamespace(context.Background(), Namespace))
	return r
}

// Close ends everything the runtime does itself and leaves containers alone.
func (r *Runtime) Close() error {
	r.end()
	r.running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.engine == nil {
		return nil
	}
	return r.engine.Close()
}

// Kind is runtime.Container.
func (r *Runtime) Kind() runtime.Kind { return runtime.Container }

// Engine is Name, or empty while containerd has not been needed.
func (r *Runtime) Engine() string {
	if r.connected() == nil {
		return ""
	}
	return Name
}

// Ping looks for containerd if none is in use, and asks whether it is there.
func (r *Runtime) Ping(ctx context.Context) error {
	e, err := r.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errHangs)
	defer cancel()
	_, err = e.Version(ctx)
	return e.fault(ctx, "version", err)
}

func (r *Runtime) connected() *engine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.engine
}

// connect returns the engine. A failure is not kept.
func (r *Runtime) connect(ctx context.Context) (*engine, error) {
	r.dialing.Lock()
	defer r.dialing.Unlock()
	if r.life.Err() != nil {
		return nil, &runtime.Fault{Code: "engine_unavailable", Err: errClosed, Kind: runtime.ErrUnavailable}
	}
	if e := r.connected(); e != nil {
		return e, nil
	}
	p := placeFor(r.options.Getenv)
	c, _, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	e := &engine{place: p, Client: c}
	if err := e.settle(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.engine = e
	return e, nil
}

// settle makes the namespace, and learns what it has snapshots made by.
func (e *engine) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errHangs)
	defer cancel()
	err := e.NamespaceService().Create(ctx, Namespace, nil)
	if err != nil && !errdefs.IsAlreadyExists(native(err)) {
		return e.fault(ctx, "namespace "+Namespace, err)
	}
	label, err := e.GetLabel(ctx, defaults.DefaultSnapshotterNSLabel)
	e.snapshotter = cmp.Or(label, defaults.DefaultSnapshotter)
	return e.fault(ctx, "namespace "+Namespace, err)
}

var errClosed = errors.New("the daemon is leaving")

func (r *Runtime) outer() outer.Options {
	return outer.Options{Dir: r.options.Dir, Process: r.options.Process, Program: r.options.Program, Folder: Name}
}

// At is where a client finds the container of a run: the directory that Exec of
// internal/pid1 takes.
func (r *Runtime) At(id runtime.RunID) string { return r.outer().DirOf(id) }

// HasVolume reports whether a project, by its id, has a named volume.
func (r *Runtime) HasVolume(_ context.Context, project, name string) (bool, error) {
	return r.outer().Volumes().Has(project, name)
}

// RemoveVolumes deletes the named volumes of a project, by its id, that a
// service made; those that do not exist are no error.
func (r *Runtime) RemoveVolumes(_ context.Context, project, service string, names ...string) error {
	return r.outer().Volumes().Remove(project, service, names...)
}

// ref names a container, whose ID is never used again.
func ref(id string, run runtime.RunID) runtime.Ref {
	return runtime.Ref{Kind: runtime.Container, Run: run, ID: Name + ":" + id}
}

// List returns the containers of owner that run, or are paused.
func (r *Runtime) List(ctx context.Context, owner runtime.Owner) ([]runtime.Ref, error) {
	e, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	records, err := e.records(ctx, owner)
	if err != nil {
		return nil, err
	}
	found, err := e.tasks(ctx)
	if err != nil {
		return nil, err
	}
	var refs []runtime.Ref
	for _, c := range records {
		if alive(found[c.ID]) && !r.ended(c.ID) {
			refs = append(refs, ref(c.ID, runtime.RunID(c.Labels[labelRun])))
		}
	}
	return refs, nil
}

// ended reports whether we know of a container that it has ended, which
// containerd may hear a moment later.
func (r *Runtime) ended(id string) bool {
	r.mu.Lock()
	in := r.instances[id]
	r.mu.Unlock()
	return in != nil && over(in.gone)
}

func (e *engine) records(ctx context.Context, owner runtime.Owner) ([]containers.Container, error) {
	found, err := e.ContainerService().List(ctx, ownedBy(owner))
	return found, e.fault(ctx, "list containers", err)
}

// ownedBy is a filter of containers and snapshots.
func ownedBy(owner runtime.Owner) string { return fmt.Sprintf("labels.%q==%q", labelInstance, owner) }

// tasks are all of the namespace, by container.
func (e *engine) tasks(ctx context.Context) (map[string]*tasktypes.Process, error) {
	found, err := e.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, e.fault(ctx, "list tasks", err)
	}
	all := map[string]*tasktypes.Process{}
	for _, t := range found.Tasks {
		all[t.ID] = t
	}
	return all, nil
}

// task is that of a container, nil if it has none.
func (e *engine) task(ctx context.Context, id string) (*tasktypes.Process, error) {
	found, err := e.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if errdefs.IsNotFound(native(err)) {
		return nil, nil
	}
	if err != nil {
		return nil, e.fault(ctx, "task "+id, err)
	}
	return found.Process, nil
}

func alive(t *tasktypes.Process) bool {
	switch t.GetStatus() {
	case tasktypes.Status_RUNNING, tasktypes.Status_PAUSED, tasktypes.Status_PAUSING:
		return true
	}
	return false
}

// Sweep removes what the owner still has in containerd and nothing uses. It is
// meant for the start of a daemon, after what List found has been ended, and for
// its end.
func (r *Runtime) Sweep(ctx context.Context) error {
	e, err := r.connect(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	live := maps.Clone(r.instances)
	r.mu.Unlock()
	records, err := e.records(ctx, r.options.Owner)
	if err != nil {
		return err
	}
	found, err := e.tasks(ctx)
	if err != nil {
		return err
	}
	var problems []error
	kept := map[string]bool{}
	dirs := map[string]bool{}
	for _, c := range records {
		run := runtime.RunID(c.Labels[labelRun])
		if live[c.ID] != nil || alive(found[c.ID]) {
			kept[c.ID], dirs[r.At(run)] = true, true
			continue
		}
		problems = append(problems, e.discard(ctx, c.ID))
	}
	problems = append(problems, e.sweepSnapshots(ctx, r.options.Owner, kept))
	all, err := filepath.Glob(filepath.Join(r.options.Dir, Name, "*", "*"))
	problems = append(problems, err)
	for _, dir := range all {
		if !dirs[dir] {
			problems = append(problems, pid1.Remove(dir))
		}
	}
	return errors.Join(problems...)
}

// sweepSnapshots removes those of containers that were not made.
func (e *engine) sweepSnapshots(ctx context.Context, owner runtime.Owner, kept map[string]bool) error {
	var left []string
	s := e.SnapshotService(e.snapshotter)
	err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if !kept[info.Name] {
			left = append(left, info.Name)
		}
		return nil
	}, ownedBy(owner))
	problems := []error{e.fault(ctx, "list snapshots", err)}
	for _, key := range left {
		problems = append(problems, e.removed(ctx, "snapshot "+key, s.Remove(ctx, key)))
	}
	return errors.Join(problems...)
}

// removed is nil for what was not there to be removed.
func (e *engine) removed(ctx context.Context, what string, err error) error {
	if err = native(err); errdefs.IsNotFound(err) {
		return nil
	}
	return e.fault(ctx, "remove "+what, err)
}
