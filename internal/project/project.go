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
	"sync/atomic"
	"time"

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
	given   given
	sources sources
	keeper  *supervisor.Supervisor
	halted  atomic.Bool // the daemon leaves

	turn sync.Mutex // one change at a time

	mu       sync.RWMutex
	record   state.Project
	config   *config.Project     // as last read without error
	stamp    string              // of the files it was read from
	services map[string]*service // as they are to be run next
	env      []string            // what process services inherit
}

// Open makes a project of what is on record of it.
func Open(m *Machine, record state.Project) (*Project, []error) {
	records, problems := openRecords(m, record.ID)
	if record.Wants == nil {
		record.Wants = map[string]bool{}
	}
	return &Project{
		machine: m, id: record.ID, record: record, records: records,
		keeper: supervisor.New(), services: map[string]*service{},
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
			changes = sub.Rest() // the ends that came with the end
		}
		for _, c := range changes {
			now := c.Status
			before := last[now.Service]
			last[now.Service] = now
			if c.Run != nil {
				p.records.ran(now.Service, now.Task, *c.Run)
			}
			p.records.failed(now)
			if now.Phase == before.Phase && now.Run == before.Run {
				continue
			}
			if text := story(before, now); text != "" && !p.idle(now) {
				p.machine.Note(p.Log(now.Service), now.Run, text)
			}
		}
		if err != nil {
			return
		}
	}
}

// idle reports whether a note would only say of a service without any line that
// it stopped with the daemon. That is told to whoever stopped the daemon, and in
// the history; a log store for it would take longer than the stop.
func (p *Project) idle(now supervisor.Status) bool {
	if now.Phase != supervisor.Stopped || !p.halted.Load() {
		return false
	}
	_, err := os.Lstat(p.Log(now.Service)) // all that the run wrote is there
	return errors.Is(err, fs.ErrNotExist)
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
		if before.Phase == supervisor.Stopping {
			return "stopped; starting again"
		}
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

// Title is Record without what is wanted, which is not copied.
func (p *Project) Title() state.Project {
	p.mu.RLock()
	defer p.mu.RUnlock()
	record := p.record
	record.Wants = nil
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

func (p *Project) service(name string) *service {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.services[name]
}

// Config is the project's file as it is now. What was read stays until a file
// that it was read from changes.
func (p *Project) Config() (*config.Project, error) {
	p.mu.RLock()
	conf, stamp, dir, file := p.config, p.stamp, p.record.Dir, p.record.File
	p.mu.RUnlock()
	if conf != nil && stamp == stampOf(conf) {
		return conf, nil
	}
	began := time.Now()
	conf, err := config.Load(config.Options{Dir: dir, File: file})
	if err != nil {
		return nil, err
	}
	stamp = stampOf(conf)
	if changedSince(conf, began) {
		stamp = "" // what was read may be older than what the stamp is of
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.record.File == file {
		p.config, p.stamp = conf, stamp
	}
	return conf, nil
}

// configOf is the project's configuration in a file that need not be the one
// in use.
func (p *Project) configOf(file string) (*config.Project, error) {
	p.mu.RLock()
	dir, used := p.record.Dir, p.record.File
	p.mu.RUnlock()
	if file == used {
		return p.Config()
	}
	return config.Load(config.Options{Dir: dir, File: file})
}

// settled is how old a change has to be for file times to tell it from the
// next.
const settled = 50 * time.Millisecond

func changedSince(conf *config.Project, began time.Time) bool {
	for _, s := range conf.Sources {
		if info, err := os.Stat(s.Path); err != nil || info.ModTime().After(began.Add(-settled)) {
			return true
		}
	}
	return false
}

// stampOf tells whether the files of a configuration are as they were read:
// every one of them, and those that would be read if they were there.
func stampOf(conf *config.Project) string {
	var b strings.Builder
	local := strings.TrimSuffix(conf.File, ".toml") + ".local.toml"
	paths := []string{local, filepath.Join(conf.Dir, "locald.toml"), filepath.Join(conf.Dir, ".env")}
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

// Known resolves names for those who only look; none is All.
func (p *Project) Known(names []string) ([]string, error) {
	if len(names) == 0 {
		return p.All(p.View()), nil
	}
	if err := p.known(names); err != nil {
		return nil, err
	}
	var once []string
	for _, n := range names {
		if !slices.Contains(once, n) {
			once = append(once, n)
		}
	}
	return once, nil
}

// All is every service, in the order of the file, then those of a view that are
// no longer in it.
func (p *Project) All(v supervisor.View) []string {
	var all, gone []string
	written := map[string]bool{}
	if conf, err := p.Config(); err == nil {
		for _, c := range conf.Services {
			all = append(all, c.Name)
			written[c.Name] = true
		}
	}
	for name := range v.Status {
		if !written[name] {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	return append(all, gone...)
}

// Watch hears every change from now on.
func (p *Project) Watch() (sub *supervisor.Subscription, end func()) { return p.keeper.Subscribe() }

// View is the services that the supervisor has, and who depends on whom.
func (p *Project) View() supervisor.View {
	v := supervisor.View{Status: map[string]supervisor.Status{}, Deps: map[string][]supervisor.Dep{}}
	snapshot := p.keeper.Snapshot()
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, s := range snapshot {
		v.Status[s.Service] = s
		if made := p.services[s.Service]; made != nil {
			v.Deps[s.Service] = made.deps()
		}
	}
	return v
}

// AwaitEnd returns once the end of a run that has ended is on disk.
func (p *Project) AwaitEnd(ctx context.Context, name string, run int) {
	p.records.awaitEnd(ctx, name, run)
}

// History is what is remembered of one service.
func (p *Project) History(name string) state.Service { return p.records.get(name) }

// Log is the directory of a service's log store.
func (p *Project) Log(name string) string { return p.machine.Store.Log(p.id, name) }

// Close logs what was left undone when the daemon leaves.
func (p *Project) Close() {
	if err := p.records.lastError(); err != nil {
		p.machine.Log.Error("records are not written", "project", p.id, "error", err)
	}
}
