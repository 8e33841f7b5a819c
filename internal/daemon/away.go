package daemon

import (
	"errors"
	"sync"

	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// doubts are what is wrong beside the services: engines that have gone away
// under containers of ours, of which nobody knows what became until they are
// back, and log stores that cannot be written.
type doubts struct {
	mu      sync.Mutex
	engines map[runtime.Runtime]error
	logs    map[string]string // why, by directory
	turned  chan struct{}     // closed and replaced with every change
}

func newDoubts() *doubts {
	return &doubts{engines: map[runtime.Runtime]error{}, logs: map[string]string{}, turned: make(chan struct{})}
}

// ofEngine notes why an engine is away, or with nil that it is back.
func (d *doubts) ofEngine(rt runtime.Runtime, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if why == nil {
		delete(d.engines, rt)
	} else {
		d.engines[rt] = why
	}
	d.turn()
}

// ofLog notes why a log store cannot be written, or with "" that it can again.
func (d *doubts) ofLog(dir, cause string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if cause == "" {
		delete(d.logs, dir)
	} else {
		d.logs[dir] = cause
	}
	d.turn()
}

// turn wakes who looks. The lock is held.
func (d *doubts) turn() {
	close(d.turned)
	d.turned = make(chan struct{})
}

func (d *doubts) engine(rt runtime.Runtime) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engines[rt]
}

// log is why a log store of a project cannot be written; empty for one that can.
func (d *doubts) log(p *project.Project, service string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.logs) == 0 {
		return ""
	}
	return d.logs[p.Log(service)]
}

func (d *doubts) next() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.turned
}

// away is told when an engine goes away, and with nil when it is back. It
// tells whoever looks at a service that is in there.
func (d *Daemon) away(rt runtime.Runtime, why error) {
	d.doubts.ofEngine(rt, why)
	text := "the engine is back"
	if why != nil {
		text = why.Error()
		d.log.Warn("container engine is away", "error", why)
	} else {
		d.log.Info("container engine is back")
	}
	for _, p := range d.known() {
		for name, s := range p.View().Status {
			if s.Phase.Live() && s.Info.ContainerID != "" && in(p, name, rt) {
				d.machine.Note(p.Log(name), s.Run, text)
			}
		}
	}
}

func in(p *project.Project, name string, rt runtime.Runtime) bool {
	for _, one := range p.Runtimes([]string{name}) {
		if one == rt {
			return true
		}
	}
	return false
}

// doubt says of a service that its output is not stored, and of one in a
// container that nothing is known of it while its engine is away.
func (d *Daemon) doubt(p *project.Project, s *ipc.Service) {
	if cause := d.doubts.log(p, s.Name); cause != "" && s.Reason == "" {
		s.Reason, s.Hint = "output is not stored: "+cause, "df -h "+p.Log(s.Name)
	}
	if s.ContainerID == "" {
		return
	}
	for _, rt := range p.Runtimes([]string{s.Name}) {
		why := d.doubts.engine(rt)
		if why == nil {
			continue
		}
		s.Reason, s.Code = why.Error(), ipc.CodeEngineUnavailable
		var known *runtime.Fault
		if errors.As(why, &known) {
			s.Hint = known.Hint
		}
	}
}
