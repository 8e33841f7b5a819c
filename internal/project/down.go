package project

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// Down wants services down: those that are named, or all.
func (p *Project) Down(names []string, force bool) (sub *supervisor.Subscription, end func(), err error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	if err := p.known(names); err != nil {
		return nil, nil, err
	}
	record := p.Record()
	var wishes []supervisor.Wish
	for _, s := range p.keeper.Snapshot() {
		if len(names) == 0 || slices.Contains(names, s.Service) {
			wishes = append(wishes, supervisor.Wish{Name: s.Service, Renew: true, Force: force})
		}
	}
	for name := range record.Wants {
		if len(names) == 0 || slices.Contains(names, name) {
			record.Wants[name] = false
		}
	}
	if err := p.save(record); err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	p.record = record
	p.mu.Unlock()
	sub, end = p.keeper.Subscribe(wishes...)
	return sub, end, nil
}

// Halt stops everything without a change of what is wanted, for a daemon that
// leaves.
func (p *Project) Halt(force bool) (sub *supervisor.Subscription, end func()) {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.halted.Store(true)
	var wishes []supervisor.Wish
	for _, s := range p.keeper.Snapshot() {
		wishes = append(wishes, supervisor.Wish{Name: s.Service, Renew: true, Force: force})
	}
	return p.keeper.Subscribe(wishes...)
}

// DeleteData removes the data of services that are down.
func (p *Project) DeleteData(ctx context.Context, names []string) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	for _, s := range p.keeper.Snapshot() {
		if s.Phase.Live() && (len(names) == 0 || slices.Contains(names, s.Service)) {
			return fmt.Errorf("%s runs: its data stays", s.Service)
		}
	}
	conf, err := p.Config()
	if err != nil {
		return err
	}
	engine, err := p.chooser(conf, p.inherits())
	if err != nil {
		return err
	}
	made, err := p.make(ctx, engine, func(string) bool { return false })
	if err != nil {
		return err
	}
	var problems []error
	for _, c := range conf.Services {
		if len(names) == 0 || slices.Contains(names, c.Name) {
			problems = append(problems, p.deleteData(ctx, made[c.Name]))
			p.mu.Lock()
			delete(p.services, c.Name)
			p.mu.Unlock()
		}
	}
	return errors.Join(problems...)
}

// Runtimes is where services have run, as far as that is known. Of one that
// was started before this daemon, and that is not wanted since, nobody knows:
// it may have been in any engine that the project has used.
func (p *Project) Runtimes(names []string) []runtime.Runtime {
	found := []runtime.Runtime{p.machine.Process}
	add := func(rt runtime.Runtime) {
		if !slices.Contains(found, rt) {
			found = append(found, rt)
		}
	}
	for _, n := range names {
		s := p.service(n)
		switch {
		case !p.records.get(n).Started():
		case s != nil && s.contained():
			add(s.runtime())
		case s == nil && p.mayBeContained(n):
			for _, engine := range p.Title().Engines {
				add(p.machine.Containers(engine))
			}
		}
	}
	return found
}

// mayBeContained reports whether a service that nothing is known of but its
// record may have run in an engine.
func (p *Project) mayBeContained(name string) bool {
	conf, err := p.Config()
	if err != nil || conf.Service(name) == nil {
		return true
	}
	c := conf.Service(name)
	if c.Type == config.TypePostgres {
		return p.records.postgres(name).Volume
	}
	return c.Contained()
}

// Dependents is what depends on the named services and is wanted up.
func (p *Project) Dependents(names []string) []string {
	record := p.Record()
	return slices.DeleteFunc(p.keeper.Dependents(names), func(n string) bool { return !record.Wants[n] })
}
