package daemon

import (
	"errors"
	"sync"

	"go.uber.org/zap"

	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// absences are the engines that have gone away under containers of ours. What
// became of the containers nobody knows until they are back.
type absences struct {
	mu     sync.Mutex
	why    map[runtime.Runtime]error
	turned chan struct{} // closed and replaced with every change
}

func newAbsences() *absences {
	return &absences{why: map[runtime.Runtime]error{}, turned: make(chan struct{})}
}

// set notes why an engine is away, or with nil that it is back.
func (a *absences) set(rt runtime.Runtime, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if why == nil {
		delete(a.why, rt)
	} else {
		a.why[rt] = why
	}
	close(a.turned)
	a.turned = make(chan struct{})
}

func (a *absences) of(rt runtime.Runtime) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.why[rt]
}

func (a *absences) next() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.turned
}

// away is told when an engine goes away, and with nil when it is back. It
// tells whoever looks at a service that is in there.
func (d *Daemon) away(rt runtime.Runtime, why error) {
	d.absences.set(rt, why)
	text := "the engine is back"
	if why != nil {
		text = why.Error()
		d.log.Warn("container engine is away", zap.Error(why))
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

// doubt says of a service in a container that nothing is known of it while its
// engine is away.
func (d *Daemon) doubt(p *project.Project, s *ipc.Service) {
	if s.ContainerID == "" {
		return
	}
	for _, rt := range p.Runtimes([]string{s.Name}) {
		why := d.absences.of(rt)
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
