package supervisor

import (
	"context"
	"time"

	"github.com/locald/locald/runtime"
)

// Service is all the supervisor needs to keep one service. The functions are
// called from goroutines of their own, but for Fetch never two at once for one
// service, and must return when their context ends.
type Service struct {
	Name   string
	Deps   []Dep
	Policy Policy
	Grace  time.Duration // between asking an instance to end and forcing it

	Runtime runtime.Runtime

	// Fetch, if not nil, brings what Prepare will need and what no dependency
	// provides, while the service waits for its dependencies; Prepare may be
	// called before it has returned. What it could not bring Prepare will miss,
	// and say so.
	Fetch func(ctx context.Context, run int, report func(runtime.Progress))

	// Prepare does what comes before a run and may take long; report says how
	// far it is. It leaves nothing running, also when its context ends.
	Prepare func(ctx context.Context, run int, report func(runtime.Progress)) error

	// Spec says what to start, once what the service depends on is there.
	Spec func(ctx context.Context, run int) (runtime.Spec, error)

	// Check finds out whether the instance is ready. It reports changes of
	// mind, and returns when there is nothing more to find or ctx ends.
	Check func(ctx context.Context, run int, in runtime.Instance, report func(Finding))
}

// Dep is a service that must have come to Condition before another starts.
type Dep struct {
	Service   string
	Condition Condition
}

// Condition is how far a dependency must have come.
type Condition string

// The conditions.
const (
	UntilReady     Condition = "ready" // for a task: completed
	UntilStarted   Condition = "started"
	UntilCompleted Condition = "completed"
)

// Finding is what a probe found.
type Finding struct {
	Ready  bool
	Detail string // why not, in words
	Hint   string // something to type

	// Overdue says that it has had its time to become ready, and was not.
	Overdue bool
}

// Status is what others may know of a service. It is a value.
type Status struct {
	Service    string
	Task       bool
	Phase      Phase
	Want       Want // the latest wish
	Seen       int  // the generation of the wish that the service has heard of
	Generation int  // of the want that the current run was started for
	Alone      bool // it is to start without what it depends on and is not wanted
	Run        int
	Proven     bool // the current run has been ready
	Restarts   int  // since it was asked for
	Early      int  // endings before being ready, since it was asked for or last ready
	Fails      int  // endings in a row that called for a restart
	Delay      time.Duration

	Reason  string // of the last bad ending
	Code    string
	Hint    string
	Detail  string // what the probe last said
	Overdue bool   // the current run has had its time to become ready
	Exit    *runtime.Exit

	Info      runtime.Info
	StartedAt time.Time // of the current run; zero when it has not started
	ReadyAt   time.Time
	EndedAt   time.Time
}

// Stale reports whether the status is from before the latest wish, and so says
// nothing about it.
func (s Status) Stale() bool { return s.Seen < s.Want.Generation }

// Up reports whether the service is where a wish to be up wants it: ready, or
// for a task completed.
func (s Status) Up() bool {
	if s.Stale() {
		return false
	}
	if s.Task {
		return s.Phase == Finished && s.Generation == s.Want.Generation
	}
	return s.Phase == Ready
}

// Change is one thing a subscriber hears. Status is always that of now.
type Change struct {
	Status   Status
	Progress *runtime.Progress // of what prepares
	Run      *Run              // when a run began, started, was ready or ended
}

// Run is one run of a service, as far as it has come.
type Run struct {
	Number    int
	StartedAt time.Time // zero when it has not come so far
	ReadyAt   time.Time
	EndedAt   time.Time
	Exit      *runtime.Exit
	Reason    string // why it ended badly
}
