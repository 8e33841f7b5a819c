package project

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// ErrUnknownService is the error for a name that the project does not have.
var ErrUnknownService = errors.New("no such service")

// Project is one project. Its methods may be called concurrently; those that
// change what is wanted take turns.
type Project struct {
	machine *Machine
	id      string
	records *records
	keeper  *supervisor.Supervisor

	turn sync.Mutex // one change at a time

	mu       sync.RWMutex
	record   state.Project
	config   *config.Project     // as last read without error
	stamp    string              // of the files it was read from
	services map[string]*service // as they are to be run next
	env      []string            // what process services inherit
	pulling  runtime.Pull
}

// Open makes a project of what is on record of it.
func Open(m *Machine, record state.Project) (*Project, []error) {
	records, problems := openRecords(m, record.ID)
	if record.Wants == nil {
		record.Wants = map[string]bool{}
	}
	return &Project{
		machine: m, id: record.ID, record: record, records: records,
		keeper: supervisor.New(), services: map[string]*service{}, pulling: runtime.PullMissing,
	}, problems
}

// Serve keeps the project's services until ctx ends. It leaves them running.
func (p *Project) Serve(ctx context.Context) {
	var work sync.WaitGroup
	hearing, stop := context.WithCancel(context.WithoutCancel(ctx))
	work.Go(func() { p.records.serve(hearing) })
	work.Go(func() { p.hear(hearing) })
	p.keeper.Serve(ctx)
	stop()
	work.Wait()
}

// hear writes the history of the runs, and what happens into the services'
// logs.
func (p *Project) hear(ctx context.Context) {
	sub, end := p.keeper.Subscribe()
	defer end()
	last := map[string]supervisor.Status{}
	for {
		changes, err := sub.Next(ctx)
		if err != nil {
			return
		}
		for _, c := range changes {
			now := c.Status
			before := last[now.Service]
			last[now.Service] = now
			if now.Phase == before.Phase && now.Run == before.Run && now.StartedAt.Equal(before.StartedAt) && now.ReadyAt.Equal(before.ReadyAt) {
				continue
			}
			p.records.ran(now)
			if text := story(before, now); text != "" {
				p.machine.Note(p.machine.Store.Log(p.id, now.Service), now.Run, text)
			}
		}
	}
}

// story is what a change of phase means, in a line of the service's own log.
func story(before, now supervisor.Status) string {
	switch now.Phase {
	case supervisor.Backoff:
		return fmt.Sprintf("%s; restarting in %v", now.Reason, now.Delay)
	case supervisor.Failed:
		return now.Reason
	case supervisor.Finished:
		return now.Reason
	case supervisor.Stopped:
		if before.Phase == supervisor.Stopping {
			return "stopped"
		}
	case supervisor.Preparing:
		if before.Phase.Live() && before.Run != 0 && now.Run != before.Run && now.Reason != "" {
			return now.Reason + "; restarting"
		}
	default: // the rest is seen in status
	}
	return ""
}

// ID is what tells the project from every other on this machine.
func (p *Project) ID() string { return p.id }

// Record is what is wanted, as written down.
func (p *Project) Record() state.Project {
	p.mu.RLock()
	defer p.mu.RUnlock()
	record := p.record
	record.Wants = maps.Clone(record.Wants)
	return record
}

func (p *Project) identity() runtime.Project {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return runtime.Project{ID: p.id, Name: p.record.Name, Dir: p.record.Dir}
}

func (p *Project) inherits() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.env
}

func (p *Project) pull() runtime.Pull {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.pulling
}

func (p *Project) service(name string) *service {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.services[name]
}

// Config is the project's file as it is now. What was read stays until a file
// that it was read from changes.
func (p *Project) Config() (*config.Project, error) {
	p.mu.RLock()
	conf, stamp, options := p.config, p.stamp, config.Options{Dir: p.record.Dir, File: p.record.File}
	p.mu.RUnlock()
	if conf != nil && stamp == stampOf(conf) {
		return conf, nil
	}
	conf, err := config.Load(options)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config, p.stamp = conf, stampOf(conf)
	return conf, nil
}

// stampOf tells whether the files of a configuration are as they were read:
// every one of them, and those that would be read if they were there.
func stampOf(conf *config.Project) string {
	var b strings.Builder
	paths := []string{filepath.Join(conf.Dir, "locald.local.toml"), filepath.Join(conf.Dir, ".env")}
	for _, s := range conf.Sources {
		paths = append(paths, s.Path)
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%s -\n", path)
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
	}
	return b.String()
}

// Ask is what the user asks of a project.
type Ask struct {
	supervisor.Ask
	Profiles []string
	Env      []string // the client's; nil keeps what was inherited before
	Pull     runtime.Pull
}

// make turns a configuration into services, those that are unchanged included.
// It assigns ports, but starts and records nothing.
func (p *Project) make(ctx context.Context, conf *config.Project, want func(name string) bool) (map[string]*service, error) {
	made := map[string]*service{}
	for _, c := range conf.Services {
		s := &service{project: p, conf: c, config: conf}
		made[c.Name] = s
		if c.Type != config.TypePostgres {
			continue
		}
		if before := p.service(c.Name); before != nil && before.chosen() && len(config.Changes(before.conf, c)) == 0 {
			s.choice, s.credentials = before.choice, before.credentials
			continue
		}
		if err := s.choosePostgres(ctx); err != nil && want(c.Name) {
			s.broken = err
		}
	}
	for _, c := range conf.Services {
		s := made[c.Name]
		for name, port := range s.fixed() {
			if err := p.assign(s, name, port); err != nil {
				return nil, err
			}
		}
	}
	return made, nil
}

// assign gives a service a port: the one that is written, or one that stays
// the same from run to run.
func (p *Project) assign(s *service, name string, fixed int) error {
	port, k := fixed, key(p.id, s.conf.Name, name)
	if fixed == 0 {
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

// known refuses names that nobody has heard of.
func (p *Project) known(names []string) error {
	conf, err := p.Config()
	record := p.Record()
	for _, n := range names {
		if _, wanted := record.Wants[n]; wanted || err == nil && conf.Service(n) != nil {
			continue
		}
		if err != nil {
			return err
		}
		return unknown(n, conf)
	}
	return nil
}

// Known resolves names for those who only look: none is every service, in the
// order of the file, then those that are no longer in it.
func (p *Project) Known(names []string) ([]string, error) {
	if err := p.known(names); err != nil {
		return nil, err
	}
	if len(names) > 0 {
		return names, nil
	}
	var all []string
	if conf, err := p.Config(); err == nil {
		for _, c := range conf.Services {
			all = append(all, c.Name)
		}
	}
	for _, s := range p.keeper.Snapshot() {
		if !slices.Contains(all, s.Service) {
			all = append(all, s.Service)
		}
	}
	return all, nil
}

// Restore starts what is wanted, with the configuration as it now is or, when
// that is broken, as it was recorded. note says what people should know.
func (p *Project) Restore(ctx context.Context, note func(text string)) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	record := p.Record()
	kept, err := p.machine.Store.Environment(p.id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		note(err.Error())
	}
	conf, err := p.Config()
	if err != nil {
		broken := err
		sources := make([]config.Source, len(kept.Sources))
		for i, s := range kept.Sources {
			sources[i] = config.Source{Path: s.Path, Content: s.Content}
		}
		conf, err = config.Load(config.Options{Dir: record.Dir, File: record.File, Read: config.Recorded(sources)})
		if err != nil {
			return fmt.Errorf("%s: not restored: %w", record.Name, broken)
		}
		note(fmt.Sprintf("restored as it was recorded, because the configuration is now broken: %v", broken))
		p.mu.Lock()
		p.config, p.stamp = conf, ""
		p.mu.Unlock()
	}
	p.mu.Lock()
	p.env = kept.Env
	p.mu.Unlock()
	made, err := p.make(ctx, conf, func(name string) bool { return record.Wants[name] })
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.services = made
	p.mu.Unlock()
	var wishes []supervisor.Wish
	for _, c := range conf.Services {
		if !record.Wants[c.Name] {
			continue
		}
		known := p.records.get(c.Name)
		wishes = append(wishes, supervisor.Wish{
			Name: c.Name, Up: true, Service: made[c.Name].supervised(), Run: known.Next(),
			Done: c.Type == config.TypeTask && known.Done(),
		})
	}
	p.keeper.Apply(wishes)
	return nil
}

// Watch hears every change from now on.
func (p *Project) Watch() (sub *supervisor.Subscription, end func()) { return p.keeper.Subscribe() }

// View is the services that the supervisor has, and who depends on whom.
func (p *Project) View() supervisor.View {
	v := supervisor.View{Status: map[string]supervisor.Status{}, Deps: map[string][]supervisor.Dep{}}
	for _, s := range p.keeper.Snapshot() {
		v.Status[s.Service] = s
		if made := p.service(s.Service); made != nil {
			v.Deps[s.Service] = made.supervised().Deps
		}
	}
	return v
}

// History is what is remembered of one service.
func (p *Project) History(name string) state.Service { return p.records.get(name) }

// Log is the directory of a service's log store.
func (p *Project) Log(name string) string { return p.machine.Store.Log(p.id, name) }

// Close logs what was left undone when the daemon leaves.
func (p *Project) Close() {
	if err := p.records.lastError(); err != nil {
		p.machine.Log.Error("records are not written", zap.String("project", p.id), zap.Error(err))
	}
}

// UseFile says which file is the project's, when it is not the one that was
// used before.
func (p *Project) UseFile(file string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if file != "" && p.record.File != file {
		p.record.File, p.config = file, nil
	}
}

// Lost closes the record of a run whose end nobody saw.
func (p *Project) Lost(name string, run int, why string) {
	p.records.change(name, func(s *state.Service) {
		for i := range s.Runs {
			if r := &s.Runs[i]; r.Run == run && r.End.IsZero() {
				r.End, r.Reason = time.Now(), why
			}
		}
	})
}
