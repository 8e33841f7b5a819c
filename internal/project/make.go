package project

import (
	"context"
	"maps"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/runtime"
)

// make turns a configuration into services, those that are unchanged included.
// It starts and records nothing. An engine is asked only for services that are
// wanted.
func (p *Project) make(ctx context.Context, engine *chooser, want func(name string) bool) (map[string]*service, error) {
	conf, made := engine.conf, map[string]*service{}
	for _, c := range conf.Services {
		s := &service{project: p, conf: c, config: conf, engine: engine.engine}
		made[c.Name] = s
		wanted := want(c.Name)
		if before := p.service(c.Name); before != nil && before.chosen() && len(config.Changes(before.conf, c)) == 0 {
			s.choice, s.credentials = before.choice, before.credentials
		} else if c.Type == config.TypePostgres {
			s.broken = s.choosePostgres(func() error {
				if !wanted {
					return runtime.ErrUnavailable
				}
				engine.ask(ctx)
				return p.machine.Containers(engine.engine.Name).Ping(ctx)
			})
		}
		if wanted && s.contained() {
			engine.ask(ctx)
		}
	}
	for _, s := range made {
		s.engine = engine.engine
		if s.broken == nil && s.contained() {
			s.broken = s.elsewhere()
		}
	}
	return made, p.address(conf, made)
}

// address gives services their ports. Those that have some keep them, but for
// ports that were picked anew since.
func (p *Project) address(conf *config.Project, made map[string]*service) error {
	for _, written := range []bool{true, false} { // what is written comes first: the rest keeps out of its way
		for _, c := range conf.Services {
			s := made[c.Name]
			for name, port := range s.fixed() {
				if (port != 0) != written {
					continue
				}
				if err := p.assign(s, name, port); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// assign gives a service a port: the one that is written, or one that stays
// the same from run to run.
func (p *Project) assign(s *service, name string, fixed int) error {
	port, k := fixed, key(p.id, s.conf.Name, name)
	if fixed != 0 {
		p.machine.claim(k, fixed)
	} else {
		var err error
		if port, err = p.machine.pick(k, p.records.get(s.conf.Name).Ports[name]); err != nil {
			return err
		}
	}
	s.mu.Lock()
	held := maps.Clone(s.held)
	if held == nil {
		held = map[string]int{}
	}
	held[name] = port
	s.held = held
	s.mu.Unlock()
	if known := p.records.get(s.conf.Name); fixed == 0 && known.Ports[name] != port {
		p.records.change(s.conf.Name, func(r *state.Service) {
			r.Ports = maps.Clone(r.Ports)
			if r.Ports == nil {
				r.Ports = map[string]int{}
			}
			r.Ports[name] = port
		})
	}
	return nil
}

// reassign gives a service another port than the one that somebody else has.
func (p *Project) reassign(s *service, name string) error {
	p.machine.release(key(p.id, s.conf.Name, name))
	p.records.change(s.conf.Name, func(r *state.Service) {
		r.Ports = maps.Clone(r.Ports)
		delete(r.Ports, name)
	})
	return p.assign(s, name, 0)
}
