package supervisor

import (
	"fmt"
	"slices"
	"strings"
)

// Op is what a plan does to one service.
type Op string

// The operations.
const (
	OpStart   Op = "start"
	OpRestart Op = "restart"
	OpRun     Op = "run" // a task once more
	OpStop    Op = "stop"
	OpKeep    Op = "keep"
)

// Step is what a plan does to one service, and why.
type Step struct {
	Service string
	Op      Op
	Cause   string
}

// String is the step as people read it.
func (s Step) String() string { return fmt.Sprintf("%-8s%s: %s", s.Op, s.Service, s.Cause) }

// Part is one service of a project as a plan sees it.
type Part struct {
	Name    string
	Deps    []Dep
	Known   bool     // the supervisor has it
	Status  Status   // when Known
	Changes []string // what differs from what runs, in words
	Active  bool     // one of its profiles is active, or it has none
	Gone    bool     // no longer in the project's file
}

// Ask is what the user asked for.
type Ask struct {
	Names    []string // none is every active service
	Alone    bool     // not what they depend on
	Recreate bool     // also what has not changed
	Restart  bool     // the named ones also when they run
	Needed   bool     // the names are what something else needs, not what the user typed
}

// Plan says what a wish to be up changes, dependencies first. It only decides;
// parts are the services in the file's order, then those that are gone.
func Plan(parts []Part, ask Ask) []Step {
	p := planner{ask: ask, parts: map[string]Part{}, graph: graph{}}
	var names []string
	for _, part := range parts {
		p.parts[part.Name] = part
		if part.Gone {
			continue
		}
		p.graph[part.Name] = part.Deps
		if part.Active {
			names = append(names, part.Name)
		}
	}
	if len(ask.Names) > 0 {
		names = ask.Names
	}
	var order []string
	switch {
	case ask.Alone && ask.Restart:
		order = p.withTasks(names)
	case ask.Alone:
		order = slices.Clone(names)
	default:
		order = p.graph.closure(names)
	}
	steps := make([]Step, len(order))
	for i, n := range order {
		steps[i] = p.step(p.parts[n])
	}
	p.again(steps)
	for _, part := range parts {
		if part.Gone && part.Known && part.Status.Want.Up {
			steps = append(steps, Step{part.Name, OpStop, "no longer in the project"})
		}
	}
	return steps
}

// withTasks is names and the completed tasks that they depend on, dependencies
// first.
func (p planner) withTasks(names []string) []string {
	needed := map[string]bool{}
	for _, n := range names {
		needed[n] = true
	}
	order := p.graph.closure(names)
	for _, n := range slices.Backward(order) {
		if !needed[n] {
			continue
		}
		for _, d := range p.graph[n] {
			if s := p.parts[d.Service].Status; s.Task && s.Phase == Finished {
				needed[d.Service] = true
			}
		}
	}
	return slices.DeleteFunc(order, func(n string) bool { return !needed[n] })
}

type planner struct {
	ask   Ask
	parts map[string]Part
	graph graph
}

func (p planner) step(part Part) Step {
	named := slices.Contains(p.ask.Names, part.Name) && !p.ask.Needed
	s := part.Status
	op, cause := OpKeep, ""
	switch {
	case !part.Known:
		op, cause = OpStart, "not running"
	case !s.Want.Up:
		op, cause = OpStart, "stopped"
	case len(part.Changes) > 0:
		op, cause = OpRestart, strings.Join(part.Changes, ", ")
	case p.ask.Recreate && (named || len(p.ask.Names) == 0):
		op, cause = OpRestart, "--force-recreate"
	case p.ask.Restart && named:
		op, cause = OpRestart, "asked for"
	case s.Task && s.Phase == Finished && named:
		op, cause = OpRun, "named"
	case s.Task && s.Phase == Finished:
		cause = "completed"
	case s.Phase == Failed, s.Phase == Backoff:
		op, cause = OpRestart, either(s.Reason, string(s.Phase))
	case s.Phase == Finished:
		op, cause = OpStart, "ended"
	case s.Phase == Ready, s.Phase == Unready:
		cause = "running, unchanged"
	default:
		cause = string(s.Phase)
	}
	return Step{part.Name, op, cause}
}

// again adds the completed tasks that something about to start depends on.
// Steps are in dependency order, so going backwards reaches a task after all
// that depends on it.
func (p planner) again(steps []Step) {
	at := map[string]int{}
	for i, s := range steps {
		at[s.Service] = i
	}
	for i := len(steps) - 1; i >= 0; i-- {
		if op := steps[i].Op; op != OpStart && op != OpRestart && op != OpRun {
			continue
		}
		for _, d := range p.graph[steps[i].Service] {
			j, planned := at[d.Service]
			if !planned || steps[j].Op != OpKeep {
				continue
			}
			if s := p.parts[d.Service].Status; s.Task && s.Phase == Finished {
				steps[j].Op, steps[j].Cause = OpRun, steps[i].Service+" is about to start"
			}
		}
	}
}
