package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// foundTime is how long an engine that broke off in the middle of a call is
// given to come back and tell what it did.
const foundTime = 3 * time.Second

// undoTime is how long a failed start may take to clean up. What is left then
// is removed when the engine is next seen to have it.
const undoTime = 20 * time.Second

// Start creates and starts a container of its own for the run. A created
// container is removed again when it cannot be started.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := check(spec); err != nil {
		return nil, err
	}
	e, err := r.watching(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkBinds(spec, e.place.host); err != nil {
		return nil, err
	}
	if err := r.settled(ctx, e, spec); err != nil {
		return nil, err
	}
	image, err := e.image(ctx, spec)
	if err != nil {
		return nil, err
	}
	if image == nil {
		return nil, e.absent(spec)
	}
	a := &attempt{r: r, e: e, spec: spec}
	// What has begun is brought to an end of which the outcome is known, and
	// then undone, rather than broken off.
	i, err := a.run(ctx, context.WithoutCancel(ctx), image)
	if err == nil {
		return i, nil
	}
	// An engine that hangs is not waited for again at each step.
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if undone := a.undo(work); undone != nil {
		r.lose(spec.ID(), true)
	}
	return nil, fmt.Errorf("%s: %w", spec.ID(), err)
}

// settled waits until the engine has taken down what has ended of the same
// service, whose ports may be the same.
func (r *Runtime) settled(ctx context.Context, e *engine, spec runtime.Spec) error {
	for _, i := range r.tracked() {
		project, service, _, _ := i.run.Split()
		if project != spec.Project.ID || service != spec.Service || !i.hasEnded() {
			continue
		}
		if err := e.settle(ctx, i.id, container.WaitConditionNotRunning); err != nil {
			return err
		}
	}
	return nil
}

// attempt is one start under way, with what must be undone if it fails.
type attempt struct {
	r    *Runtime
	e    *engine
	spec runtime.Spec

	id     string
	i      *instance
	undoes []func(context.Context) error
}

func (a *attempt) onFailure(undo func(context.Context) error) { a.undoes = append(a.undoes, undo) }

func (a *attempt) undo(ctx context.Context) error {
	var problems []error
	for n := len(a.undoes) - 1; n >= 0; n-- {
		problems = append(problems, a.undoes[n](ctx))
	}
	return errors.Join(problems...)
}

// run goes through the steps; ctx may end between them, work does not end.
func (a *attempt) run(ctx, work context.Context, image *dockerspec.DockerOCIImageConfig) (*instance, error) {
	var n *projectNetwork
	var leave func(context.Context) error
	if !a.spec.Image.Host {
		var err error
		if n, leave, err = a.r.networks.join(work, a.e, a.spec); err != nil {
			return nil, err
		}
		a.onFailure(leave)
	}
	if err := a.e.makeVolumes(work, a.spec); err != nil {
		return nil, err
	}
	if err := a.create(ctx, work, n); err != nil {
		return nil, err
	}
	if err := a.e.checkCommand(work, a.id, a.spec, image); err != nil {
		return nil, err
	}
	a.i = a.r.track(newInstance(a.r, a.e, a.id, a.spec.ID()))
	a.onFailure(func(context.Context) error {
		a.i.finish(runtime.Exit{})
		a.r.forget(a.i)
		return nil
	})
	if leave != nil {
		a.i.releases(leave)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := a.start(work, n); err != nil {
		return nil, err
	}
	return a.i, ctx.Err()
}

// create makes the container, once, even if the answer is lost.
func (a *attempt) create(ctx, work context.Context, n *projectNetwork) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.r.lose(a.spec.ID(), false)
	options := a.e.creation(a.spec, n)
	id, err := a.e.create(work, options)
	if a.e.conflict(err) {
		if err := a.clear(work, options.Name, err); err != nil {
			return err
		}
		id, err = a.e.create(work, options)
	}
	if err != nil && errors.Is(err, runtime.ErrUnavailable) {
		if id = a.created(work, options.Name); id == "" {
			a.r.lose(a.spec.ID(), true)
			return err
		}
		err = nil
	}
	if err != nil {
		return a.refused(err)
	}
	a.id = id
	a.onFailure(func(ctx context.Context) error { return a.e.remove(ctx, id) })
	return nil
}

func (e *engine) create(ctx context.Context, options client.ContainerCreateOptions) (string, error) {
	ctx, done := e.watched(ctx)
	defer done()
	made, err := e.cli.ContainerCreate(ctx, options)
	return made.ID, e.fault(ctx, "create", err)
}

// clear removes a leftover of ours that has the name, and names anybody else
// who has it. refusal is what the engine said.
func (a *attempt) clear(ctx context.Context, name string, refusal error) error {
	holder, err := a.e.inspect(ctx, name)
	if a.e.notFound(err) {
		return nil // gone in the meantime
	}
	if err != nil {
		return err
	}
	if strings.TrimPrefix(holder.Name, "/") != name {
		return a.refused(refusal) // a conflict about something else
	}
	owner := holder.Config.Labels[labelInstance]
	if owner != string(a.spec.Owner) {
		return foreign("container", name, owner, a.e.name+" rm -f "+name)
	}
	if a.r.tracked()[holder.ID] != nil {
		return fmt.Errorf("container %s is there already and belongs to this run", short(holder.ID))
	}
	return a.e.remove(ctx, holder.ID)
}

// created looks for a container whose creation was not answered.
func (a *attempt) created(ctx context.Context, name string) string {
	found, err := a.afterwards(ctx, name)
	if err != nil || found.Config.Labels[labelRun] != string(a.spec.ID()) || found.Config.Labels[labelInstance] != string(a.spec.Owner) {
		return ""
	}
	return found.ID
}

// start attaches to the output, then starts the container.
func (a *attempt) start(ctx context.Context, n *projectNetwork) error {
	out, err := a.r.openOutput(a.spec)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	out.i = a.i
	stream, err := a.e.attach(ctx, a.id)
	if err != nil {
		out.close()
		return a.reason(ctx, err)
	}
	a.r.running.Go(func() { out.pump(stream.Conn, stream.Reader) })
	if n != nil && n.local && len(a.spec.Image.Reach) > 0 {
		// The gateway is there now, in every dialect.
		closed := a.r.open(n, a.spec.Image.Reach)
		a.onFailure(func(context.Context) error { closed(); return nil })
		a.i.releases(func(context.Context) error { closed(); return nil })
	}
	if err := a.e.start(ctx, a.id); err != nil && !errors.Is(err, runtime.ErrUnavailable) {
		stream.Close()
		return a.refused(err)
	} else if err != nil && !a.runs(ctx) {
		stream.Close()
		return err
	}
	found, err := a.e.inspect(ctx, a.id)
	if err != nil {
		stream.Close()
		return err
	}
	a.i.show(found)
	if n != nil && n.local && a.e.dialect.nameless != "" {
		a.r.running.Go(func() {
			if nobodyNames(a.r.life, n.gateway) {
				out.note(a.e.dialect.nameless)
			}
		})
	}
	if a.i.Info().Healthcheck && a.e.dialect.unchecked != nil && a.e.dialect.unchecked() {
		a.r.running.Go(func() { a.i.keepChecking(found.Config.Healthcheck.Interval) })
	}
	return nil
}

// reason finds out why nobody could attach. Podman prepares a container for
// that, and only to a start it says what was in the way.
func (a *attempt) reason(ctx context.Context, refusal error) error {
	if errors.Is(refusal, runtime.ErrUnavailable) {
		return refusal
	}
	if err := a.e.start(ctx, a.id); err != nil {
		return a.refused(err)
	}
	return refusal
}

func (e *engine) start(ctx context.Context, id string) error {
	ctx, done := e.watched(ctx)
	defer done()
	_, err := e.cli.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return e.fault(ctx, "start", err)
}

// runs asks whether a start that was not answered has happened.
func (a *attempt) runs(ctx context.Context) bool {
	found, err := a.afterwards(ctx, a.id)
	return err == nil && found.State.Status != container.StateCreated
}

// afterwards inspects a container after an answer was lost, while the engine
// comes back.
func (a *attempt) afterwards(ctx context.Context, id string) (container.InspectResponse, error) {
	const pause = 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, foundTime)
	defer cancel()
	for {
		found, err := a.e.inspect(ctx, id)
		if err == nil || ctx.Err() != nil {
			return found, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return found, ctx.Err()
		case <-a.r.life.Done():
			return found, closed()
		}
	}
}

// refused turns the engine's refusal to create or start into what helps.
func (a *attempt) refused(err error) error {
	text := err.Error()
	switch {
	case errors.Is(err, runtime.ErrUnavailable):
		return err
	case strings.Contains(text, "port is already allocated"), strings.Contains(text, "address already in use"),
		strings.Contains(text, "ports are not available"):
		return a.portTaken(err)
	case strings.Contains(text, "bind source path does not exist"):
		return invalid("config_invalid", "", "mount: %s", said(err))
	case strings.Contains(text, "container-init binary"):
		return &runtime.Fault{Code: codeUnavailable, Hint: "sudo apt-get install catatonit", Err: errors.New(said(err))}
	case strings.Contains(text, "slirp4netns"), strings.Contains(text, "rootless netns"), strings.Contains(text, "pasta"):
		return a.networkless(err)
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "exec: ") && strings.Contains(text, "no such file or directory"):
		return invalid("command_missing", "", "command not found in image %s: %s", a.spec.Image.Name, said(err))
	case strings.Contains(text, "inimum memory limit"), strings.Contains(text, "ange of CPUs"),
		strings.Contains(text, "unable to find user"), strings.Contains(text, "unable to find group"), strings.Contains(text, "annot mkdir"):
		return invalid("config_invalid", "", "%s", said(err))
	case strings.Contains(text, "no space left on device"):
		return &runtime.Fault{Code: "disk_full", Hint: a.e.name + " system df", Err: fmt.Errorf("the engine's disk is full: %s", said(err))}
	}
	return errors.New(said(err))
}

// networkless is the error of an engine that runs as an ordinary user and cannot
// make networks.
func (a *attempt) networkless(err error) error {
	hint := fmt.Sprintf("network = %q in [services.%s] of locald.toml", "host", a.spec.Service)
	if strings.Contains(err.Error(), "executable file not found") {
		hint = "sudo apt-get install slirp4netns"
	}
	return &runtime.Fault{Code: codeUnavailable, Hint: hint, Err: fmt.Errorf("rootless %s cannot make the project's network: %s", a.e.name, said(err))}
}

func (a *attempt) portTaken(err error) error {
	for _, p := range a.spec.Image.Ports {
		number := strconv.Itoa(p.Host)
		if strings.Contains(err.Error(), ":"+number) {
			return &runtime.Fault{Code: "port_taken", Hint: "ss -ltnp 'sport = :" + number + "'", Err: fmt.Errorf("port %s on 127.0.0.1 is taken", number)}
		}
	}
	return &runtime.Fault{Code: "port_taken", Hint: "ss -ltnp", Err: errors.New(said(err))}
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// checkCommand looks for the program in the created container, because what
// is started there is the init process, which would only fail later. What the
// image brings itself is trusted.
func (e *engine) checkCommand(ctx context.Context, id string, spec runtime.Spec, image *dockerspec.DockerOCIImageConfig) error {
	argv := spec.Image.Entrypoint
	if argv == nil && len(image.Entrypoint) == 0 || argv != nil && len(argv) == 0 {
		argv = spec.Command
	}
	if len(argv) == 0 {
		return nil
	}
	program := argv[0]
	candidates := []string{program}
	switch {
	case path.IsAbs(program):
	case strings.Contains(program, "/"):
		candidates[0] = path.Join("/", cmp.Or(spec.Image.Workdir, image.WorkingDir), program)
	default:
		candidates = nil
		for _, dir := range strings.Split(cmp.Or(lookup(spec.Env, "PATH"), lookup(image.Env, "PATH"), defaultPath), ":") {
			candidates = append(candidates, path.Join("/", dir, program))
		}
	}
	var barred string
	for _, candidate := range candidates {
		mode, err := e.stat(ctx, id, candidate)
		switch {
		case e.notFound(err):
		case err != nil:
			return nil // the engine cannot tell; the start will
		case mode.IsDir() || mode.Type() == 0 && mode.Perm()&0o111 == 0:
			barred = candidate
		default:
			return nil
		}
	}
	if barred != "" {
		return invalid("command_missing", "", "command %s: %s in image %s is not executable", program, barred, spec.Image.Name)
	}
	return invalid("command_missing", e.name+" run --rm -it --entrypoint sh "+spec.Image.Name,
		"command %s: no such program in image %s", program, spec.Image.Name)
}

func (e *engine) stat(ctx context.Context, id, path string) (fs.FileMode, error) {
	ctx, done := e.watched(ctx)
	defer done()
	found, err := e.cli.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: path})
	return found.Stat.Mode, err
}

func lookup(env []string, name string) string {
	for n := len(env) - 1; n >= 0; n-- {
		if value, ok := strings.CutPrefix(env[n], name+"="); ok {
			return value
		}
	}
	return ""
}
