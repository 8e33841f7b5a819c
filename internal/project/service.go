package project

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/env"
	"github.com/locald/locald/internal/ports"
	"github.com/locald/locald/internal/postgres"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// service is one service as it is to be run: what is written of it, and what
// this machine adds. It does not change once it is made, but for what a run
// leaves in it.
type service struct {
	project *Project
	conf    *config.Service
	config  *config.Project
	engine  Engine // of its container

	choice      postgres.Choice      // of a managed Postgres
	credentials postgres.Credentials // of a managed Postgres
	broken      error                // why a managed Postgres cannot be run here
	edited      bool                 // files that it is built from have changed since it was
	unread      error                // why that cannot be told

	mu      sync.Mutex
	pulling runtime.Pull   // what the up asked for; empty is PullMissing
	held    map[string]int // the ports on this host, "" is the main one; replaced, never changed
}

// contained reports whether the service runs in a container.
func (s *service) contained() bool {
	if s.conf.Type == config.TypePostgres {
		return !s.choice.Native
	}
	return s.conf.Contained()
}

// bridged reports whether the service sees the network of its project and not
// that of the host.
func (s *service) bridged() bool { return s.contained() && s.conf.Network != "host" }

// ports is the service's ports on this host; "" is the main one.
func (s *service) ports() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// inside is the port that the service listens on, as it sees it itself.
func (s *service) inside(name string) int {
	switch {
	case !s.bridged():
		return s.ports()[name]
	case name != "":
		return s.conf.Ports[name]
	case s.conf.Type == config.TypePostgres:
		return postgresPort
	default:
		return s.conf.Port
	}
}

const postgresPort = 5432

// dir is where commands for the service run on this host.
func (s *service) dir() string {
	if s.conf.Workdir == "" {
		return s.config.Dir
	}
	return s.conf.Workdir
}

// chosen reports whether it is decided how a managed Postgres is run.
func (s *service) chosen() bool { return s.choice.Native || s.choice.Image != "" }

// how is what runs the service, in words.
func (s *service) how() string {
	switch {
	case s.conf.Type == config.TypePostgres && s.choice.Native:
		return "Postgres " + s.choice.Install.Version + " as a process"
	case s.conf.Type == config.TypePostgres && s.chosen():
		return "a container of " + s.choice.Image
	case s.contained():
		return "a container"
	}
	return "a process"
}

// runtime is what runs the service.
func (s *service) runtime() runtime.Runtime {
	if s.contained() {
		return s.containers()
	}
	return s.project.machine.Process
}

// containers is the container runtime of the service's engine.
func (s *service) containers() runtime.Engine { return s.project.machine.Containers(s.engine.Name) }

func (s *service) log() string {
	return s.project.machine.Store.Log(s.project.id, s.conf.Name)
}

func (s *service) data() string {
	return s.project.machine.Store.Data(s.project.id, s.conf.Name)
}

// supervised is the service as the supervisor keeps it.
func (s *service) supervised() *supervisor.Service {
	c := s.conf
	cover := func(err error) error { return s.project.given.cover(c.Name, err) }
	return &supervisor.Service{
		Name: c.Name, Deps: s.deps(), Grace: c.StopTimeout, Runtime: covering{s.runtime(), cover},
		Policy: supervisor.Policy{
			Restart: supervisor.Restart(c.Restart), Task: c.Type == config.TypeTask,
			Max: c.MaxRestarts, Backoff: c.Backoff,
		},
		Fetch: s.fetch,
		Prepare: func(ctx context.Context, run int, report func(runtime.Progress)) error {
			return cover(s.prepare(ctx, run, report))
		},
		Spec: func(ctx context.Context, run int) (runtime.Spec, error) {
			spec, err := s.spec(ctx, run)
			return spec, cover(err)
		},
		Check: s.check,
	}
}

// refers reports whether anything of the service refers to something else.
func (s *service) refers() bool {
	c := s.conf
	texts := append([]string{c.Image, c.Command.Shell, c.Health.HTTP, c.Health.Command.Shell}, c.Command.Argv...)
	texts = append(texts, c.Health.Command.Argv...)
	for _, v := range c.Env {
		texts = append(texts, v.Value)
	}
	for _, v := range c.Volumes {
		texts = append(texts, v.Source)
	}
	if c.Build != nil {
		for _, v := range c.Build.Args {
			texts = append(texts, v.Value)
		}
	}
	return slices.ContainsFunc(texts, config.HasReference)
}

// deps is what the service depends on.
func (s *service) deps() []supervisor.Dep {
	deps := make([]supervisor.Dep, len(s.conf.DependsOn))
	for i, d := range s.conf.DependsOn {
		deps[i] = supervisor.Dep{Service: d.Service, Condition: supervisor.Condition(d.Condition)}
	}
	return deps
}

// fetch pulls or builds the service's image, and opens the socket on which it says that it is ready. Its failure is
// told when the service prepares or starts, which then tries again.
func (s *service) fetch(ctx context.Context, run int, report func(runtime.Progress)) {
	if s.notifies() {
		_ = s.listensTo()
	}
	if !s.contained() || s.broken != nil {
		return
	}
	base, err := s.base(run)
	if err != nil {
		return
	}
	spec, err := s.imageSpec(base)
	if err == nil {
		err = s.digestSources(ctx, spec)
	}
	if err == nil && s.runtime().Prepare(ctx, spec, report) == nil {
		s.pulled()
	}
}

// prepare does what comes before a run: it waits until nothing of an earlier
// daemon is left, pulls or builds images, creates data.
func (s *service) prepare(ctx context.Context, run int, report func(runtime.Progress)) error {
	return lasting(s.tryToPrepare(ctx, run, report))
}

// lasting marks what another try cannot mend: somebody has to do something
// first.
func lasting(err error) error {
	known, ok := errors.AsType[*runtime.Fault](err)
	if !ok || known.Kind != nil || !slices.Contains([]string{"config_invalid", "command_missing", "state_damaged"}, known.Code) {
		return err
	}
	return &runtime.Fault{Code: known.Code, Hint: known.Hint, Service: known.Service, Err: err, Kind: runtime.ErrInvalid}
}

func (s *service) tryToPrepare(ctx context.Context, run int, report func(runtime.Progress)) error {
	if err := s.project.machine.Clear(ctx, s.runtime()); err != nil {
		return err
	}
	if s.broken != nil {
		return s.broken
	}
	if err := s.free(); err != nil {
		return err
	}
	if err := s.project.records.begin(s.conf.Name, run); err != nil {
		return err
	}
	if !s.contained() && s.conf.Type != config.TypePostgres {
		return nil // Start finds out all there is to find out
	}
	base, err := s.base(run)
	if err != nil {
		return err
	}
	if s.conf.Type == config.TypePostgres {
		return s.preparePostgres(ctx, base, report)
	}
	if s.engine.Why != "" {
		s.project.machine.Note(s.log(), run, "runs in "+s.engine.Name+": "+s.engine.Why)
	}
	spec, err := s.containerSpec(base)
	if err != nil {
		return err
	}
	if err := s.digestSources(ctx, spec); err != nil {
		return err
	}
	if err := s.runtime().Prepare(ctx, spec, report); err != nil {
		return err
	}
	s.pulled()
	return nil
}

// pull is when the image is pulled for the next run.
func (s *service) pull() runtime.Pull {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pulling == "" {
		return runtime.PullMissing
	}
	return s.pulling
}

// pulled ends what an up asked for: it is not asked for again when the service
// is restarted because it crashed.
func (s *service) pulled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pulling == runtime.PullAlways {
		s.pulling = runtime.PullMissing
	}
}

// free makes sure that nobody has the service's ports. One that is written is
// the user's to change; one that locald picked is picked anew.
func (s *service) free() error {
	for name, port := range s.ports() {
		taken := ports.Taken(port)
		if taken == nil {
			continue
		}
		if s.picks(name) {
			if err := s.project.reassign(s, name); err != nil {
				return err
			}
			s.project.machine.Note(s.log(), 0, fmt.Sprintf("%v; uses %d instead", taken, s.ports()[name]))
			continue
		}
		return &runtime.Fault{
			Code: "port_taken", Hint: s.portHint(name),
			Err: taken, Kind: runtime.ErrInvalid,
		}
	}
	return nil
}

// picks reports whether a port on this host is locald's to pick.
func (s *service) picks(name string) bool { return s.fixed()[name] == 0 }

// fixed is the ports that the service has on this host, 0 where locald picks.
func (s *service) fixed() map[string]int {
	c := s.conf
	fixed := map[string]int{}
	switch {
	case s.bridged():
		if s.inside("") != 0 {
			fixed[""] = c.HostPort
		}
		if c.Type == config.TypePostgres {
			fixed[""] = c.Port
		}
		for name := range c.Ports {
			fixed[name] = 0
		}
		return fixed
	case c.HasPort():
		fixed[""] = c.Port
	}
	for name, port := range c.Ports {
		fixed[name] = port
	}
	return fixed
}

func (s *service) portHint(name string) string {
	file := filepath.Base(s.config.File)
	switch {
	case name != "":
		return fmt.Sprintf("ports = { %s = 0 } in %s", name, file)
	case s.bridged() && s.conf.Type != config.TypePostgres:
		return "delete host_port from " + file
	case s.conf.Type == config.TypePostgres:
		return "delete port from " + file
	}
	return "delete port from " + file + ", and have the program listen on $PORT"
}

// base is what every spec of the service has in common.
func (s *service) base(run int) (runtime.Spec, error) {
	vars, err := s.environment(run)
	if err != nil {
		return runtime.Spec{}, invalid(err)
	}
	s.project.given.remember(s.conf.Name, vars, s.project.inherits())
	spec := runtime.Spec{
		Project: s.project.identity(), Service: s.conf.Name, Run: run, Owner: s.project.machine.Owner,
		Dir: s.conf.Workdir, Log: s.log(),
		StopSignal: s.conf.StopSignal, Grace: s.conf.StopTimeout,
	}
	spec.Env = make([]string, len(vars))
	for i, v := range vars {
		spec.Env[i] = v.Entry()
	}
	return spec, nil
}

// spec says what to start.
func (s *service) spec(_ context.Context, run int) (runtime.Spec, error) {
	base, err := s.base(run)
	if err != nil {
		return runtime.Spec{}, err
	}
	if s.contained() || s.conf.Type == config.TypePostgres {
		return s.imageSpec(base)
	}
	if err := s.listensTo(); err != nil {
		return base, err
	}
	c, err := s.expanded(run)
	if err != nil {
		return base, err
	}
	base.Command = c.Command.Args()
	return base, nil
}

// expanded is what is written of the service, with all references replaced.
func (s *service) expanded(run int) (*config.Service, error) {
	c, err := env.Expanded(s.input(run, s.project.service))
	return c, invalid(err)
}

// imageSpec is the spec of what runs in a container, or of a managed Postgres.
func (s *service) imageSpec(base runtime.Spec) (runtime.Spec, error) {
	if s.conf.Type == config.TypePostgres {
		return s.postgresSpec(base), nil
	}
	return s.containerSpec(base)
}

func (s *service) containerSpec(base runtime.Spec) (runtime.Spec, error) {
	c, err := s.expanded(base.Run)
	if err != nil {
		return base, err
	}
	image := &runtime.Image{
		Name: s.imageName(c), Pull: s.pull(), Entrypoint: c.Entrypoint, User: c.User,
		Host: c.Network == "host", Tmpfs: c.Tmpfs, ReadOnly: c.ReadOnly, Memory: c.Memory, CPUs: c.CPUs,
		Labels: c.Labels, Reach: s.reach(), Engine: c.MayReachEngine(),
	}
	if c.Build != nil {
		image.Build = built(c.Build)
	}
	if _, written := c.At["workdir"]; written {
		image.Workdir = c.Workdir
	}
	for _, v := range c.Volumes {
		if !c.MayReachEngine() && reachesEngine(v.Source) {
			return base, &runtime.Fault{
				Code: "config_invalid", Kind: runtime.ErrInvalid, Hint: `allow = ["` + config.DockerSocket + `"] in [services.` + c.Name + "]",
				Err: fmt.Errorf("volumes: %s lets the container command the engine, and so this whole machine", v.Source),
			}
		}
		image.Mounts = append(image.Mounts, runtime.Mount{Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly})
	}
	if s.bridged() {
		for name, port := range s.ports() {
			image.Ports = append(image.Ports, runtime.Port{Host: port, Container: s.inside(name)})
		}
		slices.SortFunc(image.Ports, func(a, b runtime.Port) int { return a.Container - b.Container })
	}
	base.Dir, base.Image, base.Command = "", image, c.Command.Args()
	return base, nil
}

// reachesEngine is config.ReachesEngine for what is there: what a reference came
// to, and where a link leads.
func reachesEngine(source string) bool {
	if !filepath.IsAbs(source) {
		return false // a volume
	}
	real, err := filepath.EvalSymlinks(source)
	return config.ReachesEngine(source) || err == nil && config.ReachesEngine(real)
}

// reach is the ports of this host that the container's dependencies listen on.
func (s *service) reach() []int {
	if !s.bridged() {
		return nil
	}
	var found []int
	for _, d := range s.conf.DependsOn {
		target := s.project.service(d.Service)
		if target == nil || target.bridged() {
			continue
		}
		for _, port := range target.ports() {
			found = append(found, port)
		}
	}
	slices.Sort(found)
	return found
}

// invalid marks what another try cannot mend.
func invalid(err error) error {
	if err == nil {
		return nil
	}
	fault := &runtime.Fault{Code: "config_invalid", Err: err, Kind: runtime.ErrInvalid}
	if wrong, ok := errors.AsType[*config.Error](err); ok && len(wrong.Problems) > 0 {
		fault.Hint = wrong.Problems[0].Hint
	}
	return fault
}

// written is the environment that the service's own configuration gives it.
func (s *service) written() map[string]string {
	vars := map[string]string{}
	in := s.input(0, s.project.service)
	for _, f := range s.conf.EnvFiles {
		for _, v := range f.Vars {
			vars[v.Name] = v.Value
		}
	}
	for _, v := range s.conf.Env {
		if value, err := env.Expand(in, v.Value, v.Pos); err == nil {
			vars[v.Name] = value
		}
	}
	return vars
}

// notifies reports whether the service is ready when it says so.
func (s *service) notifies() bool { return s.conf.Health.Written && s.conf.Health.Notify }

// notify is the path of the service's notification socket.
func (s *service) notify() string {
	if !s.notifies() {
		return s.project.machine.Store.NotifyNobody()
	}
	return s.project.machine.Store.Notify(s.project.id, s.conf.Name)
}
