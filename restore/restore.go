// Package restore decides what becomes of what an earlier daemon left: the
// instances that are found, and the runs that are on record. It only decides;
// the daemon carries it out.
//
// Nothing is adopted. What is found is ended, whoever recorded it; what is
// wanted is started again. That is one path, the same after every crash, and no
// service ever runs twice or with an end that nobody saw.
package restore

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/locald/locald/runtime"
)

// Service is what is on record of one service.
type Service struct {
	Project string // its id
	Name    string
	Wanted  bool
	Run     int  // the last that is on record; 0 is none
	Open    bool // that run's end is not on record
	Done    bool // a task, and its last run completed
}

// Op is what is done.
type Op string

// What can be done. End comes before Forget comes before Start.
const (
	End    Op = "end"    // stop the instance, and prove that nothing of it is left
	Forget Op = "forget" // close the record of a run whose end nobody saw
	Start  Op = "start"
	Keep   Op = "keep" // a task that completed is not run again
)

// Decision is one thing to do, and why.
type Decision struct {
	Op      Op
	Project string
	Service string
	Ref     runtime.Ref // of End
	Run     int         // of Forget
	Why     string
}

// String is the decision as people read it.
func (d Decision) String() string {
	return fmt.Sprintf("%-6s %s/%s: %s", d.Op, d.Project, d.Service, d.Why)
}

// Decide says what becomes of every instance that was found and every service
// on record.
func Decide(services []Service, found []runtime.Ref) []Decision {
	var all []Decision
	for _, ref := range found {
		all = append(all, end(services, ref))
	}
	for _, s := range services {
		if s.Open {
			all = append(all, Decision{Op: Forget, Project: s.Project, Service: s.Name, Run: s.Run, Why: fmt.Sprintf("nobody saw how run %d ended", s.Run)})
		}
		switch {
		case s.Wanted && s.Done:
			all = append(all, Decision{Op: Keep, Project: s.Project, Service: s.Name, Why: "completed"})
		case s.Wanted:
			all = append(all, Decision{Op: Start, Project: s.Project, Service: s.Name, Why: "wanted"})
		}
	}
	rank := []Op{End, Forget, Keep, Start}
	slices.SortStableFunc(all, func(a, b Decision) int {
		return cmp.Compare(slices.Index(rank, a.Op), slices.Index(rank, b.Op))
	})
	return all
}

// end is the fate of an instance: always the same, for a reason that is told.
func end(services []Service, ref runtime.Ref) Decision {
	project, name, run, ok := ref.Run.Split()
	d := Decision{Op: End, Project: project, Service: name, Ref: ref}
	if !ok {
		d.Why = "it carries our mark, and no run that can be read"
		return d
	}
	i := slices.IndexFunc(services, func(s Service) bool { return s.Project == project && s.Name == name })
	switch {
	case i < 0:
		d.Why = fmt.Sprintf("run %d of a service that is not on record", run)
	case services[i].Wanted:
		d.Why = fmt.Sprintf("run %d was left behind, and is started anew", run)
	default:
		d.Why = fmt.Sprintf("run %d was left behind, and is not wanted", run)
	}
	return d
}
