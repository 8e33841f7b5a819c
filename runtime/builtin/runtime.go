package builtin

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

// Name is what projects write to have this engine.
const Name = runtime.EngineBuiltin

// Folder is where the directories of containers are, below the state directory.
const Folder = "containers"

// The users that containers have. Those of root have all of the machine's.
const (
	OneUser   = "one"   // who is the user of this process outside
	RangeUser = "range" // those that the system has set apart for him
)

// UsersVariable is the environment variable that is meant for Options.Users.
const UsersVariable = pid1.UsersVariable

// Options say where a Runtime keeps things, and what runs its containers.
type Options struct {
	Dir     string          // of the state: images, containers and volumes are below it
	Process runtime.Runtime // runs the containers, and says whose they are
	Images  oci.Options

	// Users says which the containers of an ordinary user have; empty is OneUser.
	Users string

	// Program is argv of what makes containers: a locald, or cmd/maker. Empty is
	// this program.
	Program []string

	// Note puts a sentence about a run into its log; nil: nobody reads.
	Note func(log string, run int, text string)
}

// Runtime makes containers without an engine. Its methods may be called
// concurrently.
type Runtime struct {
	options Options
	pulls   outer.Pulls[*oci.Image]

	trying    sync.Mutex
	supported bool // this machine lets us; guarded by trying

	vanishing vanishing

	mu    sync.Mutex
	store *oci.Store
	users *pid1.Range // for RangeUser, once they were looked for
	live  map[runtime.RunID]*instance
}

// New returns a runtime. Nothing is made on disk yet.
func New(o Options) *Runtime {
	return &Runtime{options: o, live: map[runtime.RunID]*instance{}}
}

// Kind is Container.
func (r *Runtime) Kind() runtime.Kind { return runtime.Container }

// Engine is Name.
func (r *Runtime) Engine() string { return Name }

// Ping is nil when this machine lets us make containers.
func (r *Runtime) Ping(context.Context) error {
	r.trying.Lock()
	defer r.trying.Unlock()
	if r.supported {
		return nil
	}
	if err := os.MkdirAll(r.options.Dir, 0o700); err != nil {
		return outer.Unwritten(err)
	}
	if err := pid1.Supported(r.options.Dir); err != nil {
		return unsupported(err)
	}
	users, err := r.ranged()
	if err == nil && users != nil {
		err = users.Own(r.options.Dir, nil) // does nothing, as one of them
	}
	if err != nil {
		return unsupported(err)
	}
	r.supported = true
	return nil
}

// ranged are the users of containers; nil is one, or all where we are root.
func (r *Runtime) ranged() (*pid1.Range, error) {
	switch users := r.options.Users; {
	case users != "" && users != OneUser && users != RangeUser:
		return nil, &pid1.Error{
			Kind: pid1.Forbidden, What: UsersVariable + "=" + users, Why: "neither " + OneUser + " nor " + RangeUser,
			Hint: "unset " + UsersVariable + "; locald server restart",
		}
	case users != RangeUser || os.Geteuid() == 0:
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == nil {
		users, err := pid1.FindRange()
		if err != nil {
			return nil, err
		}
		r.users = users
	}
	return r.users, nil
}

// Store is the images, opened when they are first asked for.
func (r *Runtime) Store() (*oci.Store, error) {
	users, err := r.ranged()
	if err != nil {
		return nil, err
	}
	options := r.options.Images
	if users != nil {
		options.Remove = pid1.Remove
		options.Own = func(dir string, owners []oci.Owner) error {
			all := make([]pid1.Owner, len(owners))
			for i, o := range owners {
				all[i] = pid1.Owner{Name: []byte(o.Name), UID: o.UID, GID: o.GID, Mode: o.Mode}
			}
			return users.Own(dir, all)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.store == nil {
		store, err := oci.Open(r.imagesDir(), options)
		if err != nil {
			return nil, err
		}
		r.store = store
	}
	return r.store, nil
}

// Where the images are: files of one user, and files of many, are not the same.
const (
	imagesOfOne  = "images"
	imagesOfMany = "images-range"
)

func (r *Runtime) imagesDir() string {
	name := imagesOfOne
	if r.options.Users == RangeUser && os.Geteuid() != 0 {
		name = imagesOfMany
	}
	return filepath.Join(r.options.Dir, name)
}

// Prepare pulls the image, as spec.Image.Pull says.
func (r *Runtime) Prepare(ctx context.Context, spec runtime.Spec, report func(runtime.Progress)) error {
	if err := check(spec); err != nil {
		return err
	}
	if err := r.Ping(ctx); err != nil {
		return err
	}
	_, err := r.image(ctx, spec, report)
	return err
}

// At is where a client finds the container of a run: the directory that Exec of
// internal/pid1 takes.
func (r *Runtime) At(id runtime.RunID) string { return r.dirOf(id) }

// List returns the containers of owner that run: what the process runtime finds,
// and has a container's directory.
func (r *Runtime) List(ctx context.Context, owner runtime.Owner) ([]runtime.Ref, error) {
	found, err := r.options.Process.List(ctx, owner)
	var all []runtime.Ref
	for _, ref := range found {
		if _, err := os.Stat(r.dirOf(ref.Run)); err == nil {
			ref.Kind = runtime.Container
			all = append(all, ref)
		}
	}
	return all, err
}

// Attach returns the container that ref names.
func (r *Runtime) Attach(ctx context.Context, ref runtime.Ref) (runtime.Instance, error) {
	if ref.Kind != runtime.Container {
		return nil, runtime.ErrGone
	}
	ref.Kind = runtime.Process
	main, err := r.options.Process.Attach(ctx, ref)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	in := r.live[ref.Run]
	r.mu.Unlock()
	if in != nil && in.Main() == main {
		return in, nil
	}
	return &instance{Container: outer.New(main, r.dirOf(ref.Run)), r: r, unwatch: func() {}}, nil
}

// Start makes the container and returns once its main program is executed.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	image, err := r.image(ctx, spec, func(runtime.Progress) {})
	if err != nil {
		return nil, err
	}
	dir := r.dirOf(spec.ID())
	made, err := r.container(spec, image, dir)
	if err != nil {
		return nil, err
	}
	store, err := r.Store()
	if err != nil {
		return nil, err
	}
	if err := store.Lease(ctx, string(spec.ID()), image.Digest); err != nil {
		return nil, r.imageFault(err)
	}
	in, err := r.start(ctx, spec, image, made)
	if err != nil {
		return nil, errors.Join(err, pid1.Remove(dir), store.Release(string(spec.ID())))
	}
	return in, nil
}

// start runs what makes the container, and waits until it is made.
func (r *Runtime) start(ctx context.Context, spec runtime.Spec, image *oci.Image, made pid1.Spec) (*instance, error) {
	o := r.outer()
	o.Program, o.Limits = r.options.Program, limits(spec.Image)
	c, err := o.Start(ctx, spec, &image.Config, made)
	if err != nil {
		return nil, err
	}
	if err := c.Ready(ctx); err != nil {
		return nil, c.Abandon(ctx, spec, err)
	}
	c.Check(image.Config.Healthcheck)
	in := &instance{Container: c, r: r}
	in.unwatch = r.vanishing.watch(made.Dir, in.vanished)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[spec.ID()] = in
	return in, nil
}

func (r *Runtime) outer() outer.Options {
	return outer.Options{Dir: r.options.Dir, Process: r.options.Process, Folder: Folder}
}

// dirOf is where a container is made.
func (r *Runtime) dirOf(id runtime.RunID) string { return r.outer().DirOf(id) }

// discard deletes a container's directory and ends its lease.
func (r *Runtime) discard(id runtime.RunID) error {
	store, err := r.Store()
	if err != nil {
		return err
	}
	return errors.Join(pid1.Remove(r.dirOf(id)), store.Release(string(id)))
}

// HasVolume reports whether a project, by its id, has a named volume.
func (r *Runtime) HasVolume(_ context.Context, project, name string) (bool, error) {
	return r.outer().Volumes().Has(project, name)
}

// RemoveVolumes deletes the named volumes of a project, by its id, that a
// service made; those that do not exist are no error.
func (r *Runtime) RemoveVolumes(_ context.Context, project, service string, names ...string) error {
	return r.outer().Volumes().Remove(project, service, names...)
}

// Sweep deletes what is left of containers that are gone: nothing of the owner's
// may run that this runtime has not started.
func (r *Runtime) Sweep(context.Context) error {
	var problems []error
	for _, name := range []string{imagesOfOne, imagesOfMany} { // an earlier daemon may have had the other
		dir := filepath.Join(r.options.Dir, name)
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		store, err := oci.Open(dir, r.options.Images)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		leases, err := store.Leases()
		problems = append(problems, err)
		for owner := range leases {
			id := runtime.RunID(owner)
			r.mu.Lock()
			_, live := r.live[id]
			r.mu.Unlock()
			if !live {
				problems = append(problems, pid1.Remove(r.dirOf(id)), store.Release(owner))
			}
		}
	}
	return errors.Join(problems...)
}
