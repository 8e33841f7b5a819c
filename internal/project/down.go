package project

import (
	"context"
	"errors"
	"slices"

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
			wishes = append(wishes, supervisor.Wish{Name: s.Service, Force: force})
		}
	}
	for name := range record.Wants {
		if len(names) == 0 || slices.Contains(names, name) {
			record.Wants[name] = false
		}
	}
	if err := p.machine.Store.SaveProject(record); err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	p.record = record
	p.mu.Unlock()
	sub, end = p.keeper.Subscribe(wishes...)
	return sub, end, nil
}

// Halt stops everything without a change of what is wanted.
func (p *Project) Halt(force bool) (sub *supervisor.Subscription, end func()) {
	p.turn.Lock()
	defer p.turn.Unlock()
	var wishes []supervisor.Wish
	for _, s := range p.keeper.Snapshot() {
		wishes = append(wishes, supervisor.Wish{Name: s.Service, Force: force})
	}
	return p.keeper.Subscribe(wishes...)
}

// DeleteData removes the data of services that are down.
func (p *Project) DeleteData(ctx context.Context, names []string) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	conf, err := p.Config()
	if err != nil {
		return err
	}
	made, err := p.make(ctx, conf, func(string) bool { return false })
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

// Dependents is what depends on the named services and is wanted up.
func (p *Project) Dependents(names []string) []string {
	record := p.Record()
	return slices.DeleteFunc(p.keeper.Dependents(names), func(n string) bool { return !record.Wants[n] })
}
