package project

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// Ask is what the user asks of a project.
type Ask struct {
	supervisor.Ask
	Profiles []string
	Env      []string // the client's; nil keeps what was inherited before
	Pull     runtime.Pull
}

// draft is a plan, and the services it would put in place.
type draft struct {
	conf  *config.Project
	made  map[string]*service
	steps []supervisor.Step
}

// Plan says what up would change.
func (p *Project) Plan(ctx context.Context, ask Ask) ([]supervisor.Step, error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	d, err := p.draft(ctx, ask)
	return d.steps, err
}

func (p *Project) draft(ctx context.Context, ask Ask) (draft, error) {
	conf, err := p.Config()
	if err != nil {
		return draft{}, err
	}
	for _, name := range ask.Names {
		if conf.Service(name) == nil {
			return draft{}, unknown(name, conf)
		}
	}
	made, err := p.make(ctx, conf, func(string) bool { return true })
	if err != nil {
		return draft{}, err
	}
	status := map[string]supervisor.Status{}
	for _, s := range p.keeper.Snapshot() {
		status[s.Service] = s
	}
	var parts []supervisor.Part
	for _, c := range conf.Services {
		part := supervisor.Part{Name: c.Name, Deps: made[c.Name].supervised().Deps, Active: active(c, ask.Profiles)}
		part.Status, part.Known = status[c.Name]
		if part.Known {
			part.Changes = p.changes(made, c.Name)
		}
		parts = append(parts, part)
	}
	for name, s := range status {
		if conf.Service(name) == nil {
			parts = append(parts, supervisor.Part{Name: name, Known: true, Status: s, Gone: true})
		}
	}
	return draft{conf, made, supervisor.Plan(parts, ask.Ask)}, nil
}

// unknown is the error for a name that a configuration does not have.
func unknown(name string, conf *config.Project) error {
	names := make([]string, len(conf.Services))
	for i, c := range conf.Services {
		names[i] = c.Name
	}
	f := &runtime.Fault{Code: "unknown_service", Err: fmt.Errorf("%w: %s", ErrUnknownService, name)}
	if near := config.Nearest(name, names); near != "" {
		f.Hint = "did you mean " + near + "?"
	} else {
		f.Hint = "services: " + strings.Join(names, ", ")
	}
	return f
}

// active reports whether a service is one that up starts without being named.
func active(c *config.Service, profiles []string) bool {
	return len(c.Profiles) == 0 || slices.ContainsFunc(c.Profiles, func(p string) bool { return slices.Contains(profiles, p) })
}

// changes is what differs between a service as it runs and as it would be
// made, in words.
func (p *Project) changes(made map[string]*service, name string) []string {
	before, after := p.service(name), made[name]
	if before == nil {
		return nil
	}
	changes := config.Changes(before.conf, after.conf)
	if before.contained() != after.contained() || before.choice.Image != after.choice.Image || before.choice.Install != after.choice.Install {
		changes = append(changes, "runs with "+after.how())
	}
	before.mu.Lock()
	ran := before.ran
	before.mu.Unlock()
	if ran == nil {
		return changes // it has not run
	}
	vars, err := after.environmentAmong(made)
	if err != nil {
		return changes
	}
	given := map[string]string{}
	for _, v := range vars {
		if v.Origin == inherited || v.Name == "LOCALD_RUN" {
			continue
		}
		given[v.Name] = v.Value
		if old, had := ran[v.Name]; !had || old != v.Value {
			changes = append(changes, "env "+v.Name+" changed")
		}
	}
	for name := range ran {
		if _, still := given[name]; !still {
			changes = append(changes, "env "+name+" removed")
		}
	}
	slices.Sort(changes)
	return slices.Compact(changes)
}

// Up makes services what the configuration says and wants them up. The
// subscription hears everything that follows.
func (p *Project) Up(ctx context.Context, ask Ask) (sub *supervisor.Subscription, end func(), steps []supervisor.Step, err error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	d, err := p.draft(ctx, ask)
	if err != nil {
		return nil, nil, nil, err
	}
	record := p.Record()
	record.Name, record.File, record.UsedAt = d.conf.Name, d.conf.File, time.Now()
	if ask.Profiles != nil {
		record.Profiles = ask.Profiles
	}
	for _, s := range d.steps {
		record.Wants[s.Service] = true
	}
	for name := range record.Wants {
		if d.conf.Service(name) == nil {
			delete(record.Wants, name)
		}
	}
	if err := p.write(record, d.conf, ask); err != nil {
		return nil, nil, nil, err
	}
	sub, end = p.keeper.Subscribe(append(p.wishes(d, ask), p.gone(d)...)...)
	return sub, end, d.steps, nil
}

// gone is what was stopped before it left the configuration, and is forgotten.
func (p *Project) gone(d draft) []supervisor.Wish {
	var wishes []supervisor.Wish
	for _, s := range p.keeper.Snapshot() {
		if d.conf.Service(s.Service) == nil && !s.Want.Up {
			wishes = append(wishes, supervisor.Wish{Name: s.Service, Forget: true})
			p.forget(s.Service)
		}
	}
	return wishes
}

// write puts a change on record before it is made.
func (p *Project) write(record state.Project, conf *config.Project, ask Ask) error {
	if err := p.machine.Store.SaveProject(record); err != nil {
		return err
	}
	inherit := p.inherits()
	if ask.Env != nil {
		inherit = ask.Env
	}
	kept := state.Environment{Env: inherit}
	for _, s := range conf.Sources {
		kept.Sources = append(kept.Sources, state.Source{Path: s.Path, Content: s.Content})
	}
	if err := p.machine.Store.SaveEnvironment(p.id, kept); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record, p.env = record, inherit
	p.pulling = runtime.PullMissing
	if ask.Pull != "" {
		p.pulling = ask.Pull
	}
	return nil
}

// wishes puts the services of a draft in place and says what is wished of
// them.
func (p *Project) wishes(d draft, ask Ask) []supervisor.Wish {
	var wishes []supervisor.Wish
	p.mu.Lock()
	for _, step := range d.steps {
		w := supervisor.Wish{Name: step.Service, Up: true, Alone: ask.Alone}
		switch step.Op {
		case supervisor.OpKeep: // how its ending is judged may have changed all the same
			s := d.made[step.Service]
			s.succeed(p.services[step.Service])
			p.services[step.Service], w.Service = s, s.supervised()
		case supervisor.OpStop:
			w = supervisor.Wish{Name: step.Service, Forget: true}
		default:
			w.Renew = true
			s := d.made[step.Service]
			p.services[step.Service] = s
			w.Service = s.supervised()
			w.Run = p.records.get(step.Service).Next()
		}
		wishes = append(wishes, w)
	}
	// What only others refer to has an address all the same.
	for name, s := range d.made {
		if p.services[name] == nil {
			p.services[name] = s
		}
	}
	p.mu.Unlock()
	for _, w := range wishes {
		if w.Forget {
			p.forget(w.Name)
		}
	}
	return wishes
}

func (p *Project) forget(name string) {
	p.mu.Lock()
	delete(p.services, name)
	p.mu.Unlock()
	for port := range p.records.get(name).Ports {
		p.machine.release(key(p.id, name, port))
	}
}
