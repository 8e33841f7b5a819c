package project

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/env"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// Ask is what the user asks of a project.
type Ask struct {
	supervisor.Ask
	File     string // the project's file when it is not the usual one
	Profiles []string
	Env      []string // the client's; nil keeps what was inherited before
	Pull     runtime.Pull
}

// draft is what a configuration comes to: the services it would put in place.
type draft struct {
	conf *config.Project
	made map[string]*service
}

// Plan says what up would change.
func (p *Project) Plan(ctx context.Context, ask Ask) ([]supervisor.Step, error) {
	d, err := p.draft(ctx, ask)
	if err != nil {
		return nil, err
	}
	steps := p.plan(d, ask)
	return steps, p.resolves(d, steps, ask.Env)
}

// draft does what may take long, an engine's answer for example, and so is not
// part of anybody's turn.
func (p *Project) draft(ctx context.Context, ask Ask) (draft, error) {
	conf, err := p.configOf(ask.File)
	if err != nil {
		return draft{}, err
	}
	for _, name := range ask.Names {
		if conf.Service(name) == nil {
			return draft{}, unknown(name, conf)
		}
	}
	inherit := ask.Env
	if inherit == nil {
		inherit = p.inherits()
	}
	engine, err := p.chooser(conf, inherit)
	if err != nil {
		return draft{}, err
	}
	wanted := func(name string) bool {
		return len(ask.Names) == 0 || slices.Contains(ask.Names, name) || !ask.Alone
	}
	made, err := p.make(ctx, engine, wanted)
	if err != nil {
		return draft{}, err
	}
	for name, s := range made {
		if wanted(name) {
			s.edited, s.unread = s.compareSources(ctx)
		}
	}
	return draft{conf, made}, nil
}

// resolves tries every reference, so that one that cannot be resolved changes
// nothing, and neither does a build that cannot be made again.
func (p *Project) resolves(d draft, steps []supervisor.Step, inherit []string) error {
	if inherit == nil {
		inherit = p.inherits()
	}
	var wrong []config.Problem
	for _, step := range steps {
		s := d.made[step.Service]
		if s != nil && s.unread != nil {
			return s.unread
		}
		if s == nil || !s.refers() {
			continue
		}
		in := s.input(0, func(name string) *service { return d.made[name] })
		in.Inherited = inherit
		_, err := env.Resolve(in)
		if err == nil {
			_, err = env.Expanded(in)
		}
		if problems, ok := errors.AsType[*config.Error](err); ok {
			wrong = append(wrong, problems.Problems...)
		}
	}
	if wrong != nil {
		return &config.Error{Problems: wrong}
	}
	return nil
}

func (p *Project) plan(d draft, ask Ask) []supervisor.Step {
	status := map[string]supervisor.Status{}
	for _, s := range p.keeper.Snapshot() {
		status[s.Service] = s
	}
	var parts []supervisor.Part
	for _, c := range d.conf.Services {
		part := supervisor.Part{Name: c.Name, Deps: d.made[c.Name].deps(), Active: active(c, ask.Profiles)}
		part.Status, part.Known = status[c.Name]
		if part.Known && part.Status.Want.Up { // what is down starts as it is now
			part.Changes = p.changes(d.made, c.Name)
		}
		parts = append(parts, part)
	}
	for name, s := range status {
		if d.conf.Service(name) == nil {
			parts = append(parts, supervisor.Part{Name: name, Known: true, Status: s, Gone: true})
		}
	}
	return supervisor.Plan(parts, ask.Ask)
}

// unknown is the error for a name that a configuration does not have.
func unknown(name string, conf *config.Project) error {
	return &runtime.Fault{Code: "unknown_service", Service: name, Err: fmt.Errorf("%w: %s", ErrUnknownService, name), Hint: conf.Suggest(name)}
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
	if before.contained() && after.contained() && before.engineName() != after.engineName() {
		changes = append(changes, "engine changed")
	}
	if before.contained() != after.contained() || before.choice.Image != after.choice.Image || before.choice.Install != after.choice.Install {
		changes = append(changes, "runs with "+after.how())
	}
	if after.edited {
		changes = append(changes, "files of its build changed")
	}
	run := p.given.last(name)
	if run == nil || before.contained() != after.contained() {
		return changes // it has not run, or with what a process is given
	}
	ran := run.vars
	vars, err := after.givenAmong(made)
	if err != nil {
		return changes
	}
	given := map[string]string{}
	for _, v := range vars {
		if v.Name == "LOCALD_RUN" {
			continue
		}
		given[v.Name] = v.Value
		written := slices.ContainsFunc(changes, func(c string) bool { return strings.HasPrefix(c, "env "+v.Name+" ") })
		if old, had := ran[v.Name]; (!had || old != v.Value) && !written {
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
	d, err := p.draft(ctx, ask)
	if err != nil {
		return nil, nil, nil, err
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	if err := p.address(d.conf, d.made); err != nil {
		return nil, nil, nil, err
	}
	steps = p.plan(d, ask)
	if err := p.resolves(d, steps, ask.Env); err != nil {
		return nil, nil, nil, err
	}
	record := p.Record()
	record.Name, record.File, record.UsedAt = d.conf.Name, ask.File, time.Now()
	for _, s := range d.made {
		if s.contained() {
			record.Went(s.engine.Name)
		}
	}
	if ask.Profiles != nil {
		record.Profiles = ask.Profiles
	}
	for _, s := range steps {
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
	sub, end = p.keeper.Subscribe(append(p.wishes(d, steps, ask), p.gone(d)...)...)
	return sub, end, steps, nil
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
	inherit := p.inherits()
	if ask.Env != nil {
		inherit = ask.Env
	}
	if err := p.machine.Intact(); err != nil {
		return err
	}
	// First what changes nothing by itself: the wishes are what a restore obeys.
	if err := p.saveEnvironment(conf, inherit); err != nil {
		return err
	}
	if err := p.save(record); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.record.File != record.File {
		p.config, p.stamp = nil, ""
	}
	p.retain(conf)
	p.record, p.env = record, inherit
	return nil
}

// retain has the project's logs kept for as long as its file says.
func (p *Project) retain(conf *config.Project) {
	p.machine.Retain(filepath.Dir(p.Log("any")), conf.Logs.Size, conf.Logs.Keep)
}

// save writes down what is wanted.
func (p *Project) save(record state.Project) error {
	if err := p.machine.Intact(); err != nil {
		return err
	}
	return p.machine.Store.SaveProject(record)
}

// saveEnvironment keeps what a restore needs.
func (p *Project) saveEnvironment(conf *config.Project, inherit []string) error {
	kept := state.Environment{Env: inherit}
	if conf != nil {
		for _, s := range conf.Sources {
			kept.Sources = append(kept.Sources, state.Source{Path: s.Path, Content: s.Content})
		}
	}
	return p.machine.Store.SaveEnvironment(p.id, kept)
}

// Rewrite writes down again all that is remembered of a project, when the files
// were removed.
func (p *Project) Rewrite() error {
	record := p.Record()
	if record.UsedAt.IsZero() {
		return nil // somebody looked, and nothing was ever wanted
	}
	p.records.all()
	p.mu.RLock()
	conf, inherit := p.config, p.env
	p.mu.RUnlock()
	return errors.Join(p.machine.Store.SaveProject(record), p.saveEnvironment(conf, inherit))
}

// wishes puts the services of a plan in place and says what is wished of them.
func (p *Project) wishes(d draft, steps []supervisor.Step, ask Ask) []supervisor.Wish {
	var wishes []supervisor.Wish
	placed := map[string]*service{}
	for _, step := range steps {
		if step.Op == supervisor.OpStop {
			wishes = append(wishes, supervisor.Wish{Name: step.Service, Forget: true})
			p.forget(step.Service)
			continue
		}
		s := d.made[step.Service]
		placed[step.Service] = s
		if step.Op != supervisor.OpKeep || ask.Pull != runtime.PullAlways {
			s.pulling = ask.Pull // nobody has it yet
		}
		// How the ending of one that is kept is judged may have changed all the same.
		wishes = append(wishes, supervisor.Wish{
			Name: step.Service, Up: true, Alone: ask.Alone, Renew: step.Op != supervisor.OpKeep,
			Service: s.supervised(), Run: p.records.get(step.Service).Next(),
		})
	}
	p.place(placed, d.made)
	return wishes
}

// place makes services those that run, or will. What only others refer to has
// an address all the same.
func (p *Project) place(services, others map[string]*service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.services, services)
	for name, s := range others {
		if p.services[name] == nil {
			p.services[name] = s
		}
	}
}

func (p *Project) forget(name string) {
	p.mu.Lock()
	delete(p.services, name)
	p.mu.Unlock()
	p.sources.set(name, "")
	for port := range p.records.get(name).Ports {
		p.machine.release(key(p.id, name, port))
	}
}
