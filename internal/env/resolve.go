package env

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/locald/locald/internal/config"
)

// Input is all that an environment is made of.
type Input struct {
	Project   *config.Project
	Service   *config.Service
	Run       int
	Container bool     // it is for a container: nothing is inherited, no HOST, no NOTIFY_SOCKET
	Inherited []string // the client's environment, "KEY=value"; what must not be inherited is left out here
	Apart     bool     // what is inherited is only referred to: the result is without it
	Port      int      // what PORT is; 0 is none
	Notify    string   // what NOTIFY_SOCKET is; empty is none

	// Endpoint is how Service reaches another service; false when it has no
	// address, or none yet.
	Endpoint func(service string) (Endpoint, bool)
	// Own is how Service reaches itself: of a postgres service for its PG*, of
	// others for references to itself. Without it they get Port at 127.0.0.1.
	Own Endpoint
}

// Variable is one variable of a resolved environment.
type Variable struct {
	Name, Value string
	Origin      string // "locald.toml:12", ".env", "injected (db)", "injected", "inherited"
	Secret      bool
	Hides       string // the file whose different value an injected one hides

	entry string // "NAME=value", of one that is inherited: services share it
}

// Entry is "NAME=value".
func (v Variable) Entry() string {
	if v.entry != "" {
		return v.entry
	}
	return v.Name + "=" + v.Value
}

// What an origin can say that is not a file.
const (
	injected  = "injected"
	inherited = "inherited"
)

// Resolve is the whole environment of a service, sorted by name. Strongest
// first: the service's env, what is injected, its env_file (later files and
// lines win), the project's, what is inherited. Its error is a *config.Error
// with all references that cannot be resolved.
func Resolve(in Input) ([]Variable, error) {
	r := newResolver(in)
	result := r.unwritten()
	if len(in.Service.Env) > 0 {
		result = maps.Clone(result) // its own env is not what it refers to
	}
	var wrong []config.Problem
	for _, v := range in.Service.Env {
		value, problem := r.expand(v.Value, v.Pos, "env."+v.Name)
		if problem != nil {
			wrong = append(wrong, *problem)
			continue
		}
		result[v.Name] = Variable{Name: v.Name, Value: value, Origin: line(v.Pos)}
	}
	if wrong != nil {
		return nil, &config.Error{Problems: wrong}
	}
	return sorted(result), nil
}

// Dependents is what a dependent of every service of p gets; DATABASE_URL is
// that of the first Postgres in the file. Sorted by name.
func Dependents(p *config.Project, endpoint func(service string) (Endpoint, bool)) []Variable {
	names := make([]string, len(p.Services))
	for i, s := range p.Services {
		names[i] = s.Name
	}
	return sorted(addresses(names, endpoint))
}

// line is where something is written, without the column.
func line(p config.Pos) string {
	p.Column = 0
	return p.String()
}

func sorted(vars map[string]Variable) []Variable {
	names := make([]string, 0, len(vars))
	for name := range vars {
		names = append(names, name)
	}
	slices.Sort(names)
	list := make([]Variable, len(names))
	for i, name := range names {
		list[i] = vars[name]
		list[i].Secret = config.Secret(name, list[i].Value)
	}
	return list
}

// addresses are the variables about the services of those names, the first
// Postgres among them giving DATABASE_URL. What the first gives stays.
func addresses(services []string, endpoint func(string) (Endpoint, bool)) map[string]Variable {
	vars := map[string]Variable{}
	add := func(service string, values map[string]string) {
		for name, value := range values {
			if _, known := vars[name]; !known {
				vars[name] = Variable{Name: name, Value: value, Origin: injected + " (" + service + ")"}
			}
		}
	}
	endpoints := make([]Endpoint, len(services))
	hasPostgres := false
	for i, service := range services {
		e, ok := endpoint(service)
		endpoints[i] = e
		if ok && e.Postgres && !hasPostgres {
			hasPostgres = true
			add(service, map[string]string{"DATABASE_URL": e.URL()})
			add(service, e.postgresVariables())
		}
	}
	for i, service := range services {
		add(service, endpoints[i].addressVariables(service))
	}
	return vars
}

// resolver is an Input and what has been found out about it.
type resolver struct {
	Input
	written map[string]bool     // names in the service's own env
	vars    map[string]Variable // all but the service's own env
}

func newResolver(in Input) *resolver {
	r := &resolver{Input: in, written: make(map[string]bool, len(in.Service.Env))}
	for _, v := range in.Service.Env {
		r.written[v.Name] = true
	}
	return r
}

// client is a variable that the client has, inherited or not.
func (r *resolver) client(name string) (value string, known bool) {
	for _, entry := range slices.Backward(r.Inherited) {
		if n, value, ok := clients(entry); ok && n == name {
			return value, true
		}
	}
	return "", false
}

// clients takes an entry of the client's environment apart; ok is false for
// what is no variable, or is meant for locald.
func clients(entry string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(entry, "=")
	return name, value, ok && name != "" && !strings.HasPrefix(name, "LOCALD_")
}

// injectedVars is about how many variables a service has beside what it
// inherits.
const injectedVars = 16

// unwritten is the environment without the service's own env. It is not to be
// changed.
func (r *resolver) unwritten() map[string]Variable {
	if r.vars != nil {
		return r.vars
	}
	r.vars = make(map[string]Variable, len(r.Inherited)+injectedVars)
	r.inherit()
	for _, files := range [][]config.EnvFile{r.Project.EnvFiles, r.Service.EnvFiles} {
		for _, f := range files {
			for _, v := range f.Vars {
				r.vars[v.Name] = Variable{Name: v.Name, Value: v.Value, Origin: f.Path}
			}
		}
	}
	for name, v := range r.injected() {
		if r.written[name] {
			continue
		}
		if hidden, ok := r.vars[name]; ok && hidden.Origin != inherited && hidden.Value != v.Value {
			v.Hides = hidden.Origin
		}
		r.vars[name] = v
	}
	return r.vars
}

func (r *resolver) inherit() {
	if r.Container || r.Apart {
		return
	}
	for _, entry := range r.Inherited {
		name, value, ok := clients(entry)
		if ok && (r.Project.Inherit.All || slices.Contains(r.Project.Inherit.Names, name)) {
			r.vars[name] = Variable{Name: name, Value: value, Origin: inherited, entry: entry}
		}
	}
}

// injected is what locald itself puts into the environment.
func (r *resolver) injected() map[string]Variable {
	names := make([]string, len(r.Service.DependsOn))
	for i, d := range r.Service.DependsOn {
		names[i] = d.Service
	}
	vars := addresses(names, r.endpoint)
	set := func(name, value string) { vars[name] = Variable{Name: name, Value: value, Origin: injected} }
	if r.Service.Type == config.TypePostgres && r.Own.Host != "" {
		for name, value := range r.Own.postgresVariables() {
			set(name, value)
		}
	}
	set("LOCALD_PROJECT", r.Project.Name)
	set("LOCALD_SERVICE", r.Service.Name)
	set("LOCALD_RUN", strconv.Itoa(r.Run))
	if r.Port != 0 {
		set("PORT", strconv.Itoa(r.Port))
	}
	if r.Container {
		return vars
	}
	set("HOST", "127.0.0.1")
	if r.Notify != "" {
		set("NOTIFY_SOCKET", r.Notify)
	}
	return vars
}

// endpoint is how the service reaches one of that name, itself included.
func (r *resolver) endpoint(service string) (Endpoint, bool) {
	if service == r.Service.Name {
		return r.own()
	}
	if r.Endpoint == nil {
		return Endpoint{}, false
	}
	return r.Endpoint(service)
}

func (r *resolver) own() (Endpoint, bool) {
	if r.Own.Host != "" {
		return r.Own, true
	}
	if r.Endpoint != nil {
		if e, ok := r.Endpoint(r.Service.Name); ok {
			return e, true
		}
	}
	e := Endpoint{Scheme: Scheme(r.Service), Host: "127.0.0.1", Port: r.Port, Ports: r.Service.Ports}
	return e, e.Port != 0 || len(e.Ports) > 0
}
