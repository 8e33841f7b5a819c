package project

import (
	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/env"
)

// hostGateway is the name under which a container finds this host.
const hostGateway = "host.docker.internal"

// endpoint is how a service is reached by one that sees the host's network or,
// bridged, the project's. Addresses are valid where they are read.
func (s *service) endpoint(bridged bool) (env.Endpoint, bool) {
	e := env.Endpoint{Scheme: env.Scheme(s.conf), Ports: map[string]int{}}
	switch {
	case bridged && s.bridged():
		e.Host = s.conf.Name
		for name := range s.ports() {
			e.Ports[name] = s.inside(name)
		}
	case bridged:
		e.Host = hostGateway
		e.Ports = s.ports()
	default:
		e.Host = "127.0.0.1"
		e.Ports = s.ports()
	}
	e.Port = e.Ports[""]
	named := map[string]int{}
	for name, port := range e.Ports {
		if name != "" {
			named[name] = port
		}
	}
	e.Ports = named
	switch {
	case s.conf.Type == config.TypePostgres:
		e.Postgres = true
		e.User, e.Password, e.Database = s.credentials.User, s.credentials.Password, s.credentials.Database
	case config.IsPostgresImage(s.conf.Image):
		e.Postgres = true
		e.User, e.Password, e.Database = env.PostgresOf(s.written())
	}
	return e, e.Port != 0 || len(named) > 0
}

// input is what the service's environment is resolved from; others finds the
// services that it refers to.
func (s *service) input(run int, others func(name string) *service) env.Input {
	in := env.Input{
		Project: s.config, Service: s.conf, Run: run, Container: s.contained(), Port: s.inside(""),
		Endpoint: func(name string) (env.Endpoint, bool) {
			target := others(name)
			if target == nil {
				return env.Endpoint{}, false
			}
			return target.endpoint(s.bridged())
		},
	}
	in.Inherited = s.project.inherits() // a container has references to it only
	if !s.contained() {
		in.Notify = s.notify()
	}
	if s.conf.Type == config.TypePostgres {
		in.Own, _ = s.endpoint(false)
	}
	return in
}

// environment is what a run of the service is given.
func (s *service) environment(run int) ([]env.Variable, error) {
	return env.Resolve(s.input(run, s.project.service))
}

// givenAmong is what a run would be given, beside what it inherits, if made were
// the services.
func (s *service) givenAmong(made map[string]*service) ([]env.Variable, error) {
	in := s.input(0, func(name string) *service { return made[name] })
	in.Apart = true
	return env.Resolve(in)
}

// inherited is the origin of a variable that is the client's own.
const inherited = "inherited"
