package project

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/env"
	"github.com/locald/locald/internal/ports"
	"github.com/locald/locald/internal/postgres"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// Facts is what can be shown of a service besides its status.
type Facts struct {
	Name      string
	Type      string
	Runtime   string // "process", "docker", …; empty for a container before an engine is known
	Port      int
	Ports     map[string]int
	URL       string // with the password
	DependsOn []string
	Checked   bool // something tells whether it is healthy
	Asked     bool // the engine is asked, where the image brings a health check
	Task      bool
	Hidden    []string // injected variables that hide one from a file
}

// Facts tells what is known of a service; ok is false when nothing is.
func (p *Project) Facts(name string) (f Facts, ok bool) {
	if s := p.service(name); s != nil {
		return s.facts(), true
	}
	conf, err := p.Config()
	if err != nil || conf.Service(name) == nil {
		return Facts{Name: name}, false
	}
	c := conf.Service(name)
	s := &service{project: p, conf: c, config: conf, engine: p.lastEngine(conf)}
	f = s.facts()
	if c.Type == config.TypePostgres {
		f.Runtime = ""
	}
	return f, true
}

func (s *service) facts() Facts {
	c := s.conf
	f := Facts{Name: c.Name, Type: c.Type, Runtime: string(runtime.Process), Ports: map[string]int{}, Task: c.Type == config.TypeTask}
	for name, port := range s.ports() {
		if name == "" {
			f.Port = port
		} else {
			f.Ports[name] = port
		}
	}
	if s.contained() {
		f.Runtime = s.engineName()
	}
	if f.Port != 0 {
		if e, ok := s.endpoint(false); ok {
			f.URL = e.URL()
		}
	}
	for _, d := range c.DependsOn {
		f.DependsOn = append(f.DependsOn, d.Service)
	}
	f.Checked, f.Asked = s.checked(), s.asksEngine()
	if run := s.project.given.last(c.Name); run != nil {
		f.Hidden = run.hidden
	}
	return f
}

// checked reports whether anything but being alive is asked of the service; what
// an image brings its instances tell.
func (s *service) checked() bool {
	c := s.conf
	switch {
	case c.Health.None:
		return false
	case c.Health.Written:
		return true
	case c.Type == config.TypeTask, c.Type == config.TypeWorker:
		return false
	}
	return !s.contained() || s.inside("") != 0
}

// asksEngine reports whether a health check that the image brings counts.
func (s *service) asksEngine() bool {
	c := s.conf
	return s.contained() && !c.Health.Written && !c.Health.None && c.Type == config.TypeContainer
}

// Taken is the services that do not run and a port of which somebody else has.
func (p *Project) Taken() map[string]error {
	found := map[string]error{}
	view := p.View()
	for _, name := range p.All(view) {
		s := p.service(name)
		if s == nil || view.Status[name].Phase.Live() {
			continue
		}
		for _, port := range s.ports() {
			if taken := ports.Taken(port); taken != nil {
				found[name] = taken
			}
		}
	}
	return found
}

// Env is what a service is given or, without a name, what a dependent of every
// service would be. It starts nothing.
func (p *Project) Env(ctx context.Context, file, name string, inherited []string) ([]env.Variable, error) {
	conf, made, err := p.rehearse(ctx, file, name)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return env.Dependents(conf, func(n string) (env.Endpoint, bool) {
			if s := made[n]; s != nil {
				return s.endpoint(false)
			}
			return env.Endpoint{}, false
		}), nil
	}
	s := made[name]
	in := s.input(p.records.get(name).Next(), func(n string) *service { return made[n] })
	if inherited != nil {
		in.Inherited = inherited
	}
	return env.Resolve(in)
}

// rehearse makes the services as an up with the file would, for those who only
// look.
func (p *Project) rehearse(ctx context.Context, file, name string) (*config.Project, map[string]*service, error) {
	conf, err := p.configOf(file)
	if err != nil {
		return nil, nil, err
	}
	if name != "" && conf.Service(name) == nil {
		return nil, nil, unknown(name, conf)
	}
	engine, err := p.chooser(conf, p.inherits())
	if err != nil {
		return nil, nil, err
	}
	made, err := p.make(ctx, engine, func(string) bool { return false })
	return conf, made, err
}

// Place is where and how a command is run for a service.
type Place struct {
	Dir       string
	Env       []string
	Container string // in this one, through the engine at Host
	Host      string
	Engine    string
}

// OnHost is where `locald run` runs a command: on this host, in the service's
// directory, with its environment and addresses valid here.
func (p *Project) OnHost(ctx context.Context, file, name string, inherited []string) (Place, error) {
	_, made, err := p.rehearse(ctx, file, name)
	if err != nil {
		return Place{}, err
	}
	s := made[name]
	in := s.input(p.records.get(name).Next(), func(n string) *service { return made[n] })
	in.Container, in.Inherited = false, inherited // as if it were a process
	in.Endpoint = func(n string) (env.Endpoint, bool) {
		if target := made[n]; target != nil {
			return target.endpoint(false)
		}
		return env.Endpoint{}, false
	}
	vars, err := env.Resolve(in)
	if err != nil {
		return Place{}, err
	}
	place := Place{Dir: s.dir()}
	for _, v := range vars {
		if v.Name != "NOTIFY_SOCKET" && v.Name != "LOCALD_RUN" { // it is not the service
			place.Env = append(place.Env, v.Entry())
		}
	}
	place.Env = append(place.Env, s.own()...)
	return place, nil
}

// own is the settings of a managed Postgres for a client of its own.
func (s *service) own() []string {
	if s.conf.Type != config.TypePostgres {
		return nil
	}
	return postgres.Variables(s.credentials, "127.0.0.1", s.ports()[""])
}

// Inside is where `locald exec` runs a command: in the container of the
// service that runs, or on this host with what its process was given.
func (p *Project) Inside(name string, inherited []string) (Place, error) {
	if err := p.known([]string{name}); err != nil {
		return Place{}, err
	}
	s := p.service(name)
	status, running := p.View().Status[name]
	if s == nil || !running || status.StartedAt.IsZero() || !status.Phase.Live() {
		return Place{}, &runtime.Fault{Code: "exited", Hint: "locald up " + name, Err: fmt.Errorf("%s is not running", name)}
	}
	if s.contained() {
		place := Place{Container: status.Info.ContainerID, Engine: status.Info.Engine}
		run := runtime.Spec{Project: s.project.identity(), Service: name, Run: status.Run}
		place.Host = s.containers().At(run.ID())
		if s.conf.Type == config.TypePostgres {
			place.Env = postgres.Variables(s.credentials, "127.0.0.1", postgresPort)
		}
		return place, nil
	}
	vars, err := s.environment(status.Run)
	if err != nil {
		return Place{}, err
	}
	place := Place{Dir: s.dir()}
	for _, v := range vars {
		place.Env = append(place.Env, v.Entry())
	}
	place.Env = append(place.Env, s.own()...)
	if s.conf.Type == config.TypePostgres {
		place.Env = withPath(place.Env, s.choice.Install.Bin)
	}
	return place, nil
}

// Needs is what a command for a service waits for: everything that the service
// depends on, with the condition of each.
func (p *Project) Needs(file, name string) ([]supervisor.Dep, error) {
	conf, err := p.configOf(file)
	if err != nil {
		return nil, err
	}
	c := conf.Service(name)
	if c == nil {
		return nil, unknown(name, conf)
	}
	return (&service{project: p, conf: c, config: conf}).deps(), nil
}

// withPath is an environment in which dir is where programs are looked for
// first, so that a service's own clients are found.
func withPath(vars []string, dir string) []string {
	for i, v := range vars {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			vars[i] = "PATH=" + dir + string(os.PathListSeparator) + path
			return vars
		}
	}
	return append(vars, "PATH="+dir+string(os.PathListSeparator)+"/usr/local/bin:/usr/bin:/bin")
}
