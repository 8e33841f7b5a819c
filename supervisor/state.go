package supervisor

import (
	"errors"
	"fmt"
	"time"

	"github.com/locald/locald/runtime"
)

// state is everything an event may look at.
type state struct {
	policy Policy
	want   Want
	gate   bool // what it depends on allows a start
	phase  Phase

	run     int           // the current run; 0 before the first
	made    int           // the generation the current run was started for
	proven  bool          // the current run has been ready
	fails   int           // endings in a row that call for a restart
	again   int           // restarts since it was asked for
	early   int           // endings before being ready, since it was asked for or last ready
	delay   time.Duration // the last rest
	stuck   bool          // an instance could not be ended; nothing starts until it is
	ending  ending        // of the last run
	detail  string        // what the probe last said
	hint    string        // what the probe suggests to type
	overdue bool
}

// ending is how the last run ended, for those who look.
type ending struct {
	Reason string
	Code   string // of the surface: "exited", "stop_failed"; empty when nothing is wrong
	Hint   string
	Exit   *runtime.Exit
}

// effect is something the actor must now do.
type effect string

const (
	fetch   effect = "fetch" // bring what is needed, while it waits
	prepare effect = "prepare"
	start   effect = "start"
	watch   effect = "watch" // wait for the end, and probe
	stop    effect = "stop"
	cancel  effect = "cancel" // abandon what prepares or starts
	rest    effect = "rest"
)

// converge moves a service towards what is wanted, as far as one event goes.
func converge(s state) (state, []effect) {
	unwanted := !s.want.Up || s.made != s.want.Generation
	switch s.phase {
	case Stopped, Waiting:
		return begin(s)
	case Preparing:
		if unwanted {
			s.phase = Stopping
			return s, []effect{cancel}
		}
	case Starting, Ready, Unready:
		if unwanted {
			s.phase = Stopping
			return s, []effect{stop}
		}
	case Backoff, Finished, Failed:
		if unwanted {
			return begin(s)
		}
	case Stopping: // what follows is decided when the run has ended
	}
	return s, nil
}

// begin starts the next run of a service of which nothing runs, if it may.
func begin(s state) (state, []effect) {
	switch {
	case s.stuck:
		s.phase = Stopping
		return s, []effect{stop}
	case !s.want.Up:
		s.phase = Stopped
		return s, nil
	case !s.gate && s.phase == Waiting:
		return s, nil
	case !s.gate:
		s.phase = Waiting
		return s, []effect{fetch}
	}
	s.run++
	return attempt(s)
}

// attempt begins the current run, for the first time or once more after the
// runtime was away.
func attempt(s state) (state, []effect) {
	s.made, s.phase, s.proven, s.detail, s.hint, s.overdue = s.want.Generation, Preparing, false, "", "", false
	return s, []effect{prepare}
}

// settle leaves Stopping, nothing being left to stop.
func settle(s state) (state, []effect) {
	s.stuck = false
	return begin(s)
}

// fail ends a run that could not be started.
func fail(s state, err error) (state, []effect) {
	s.ending = ending{Reason: err.Error(), Code: "internal"}
	var fault *runtime.Fault
	if errors.As(err, &fault) {
		s.ending.Code, s.ending.Hint = fault.Code, fault.Hint
	}
	switch {
	case errors.Is(err, runtime.ErrUnavailable):
		s.phase, s.delay = Failed, retryAfter
		return s, []effect{rest}
	case errors.Is(err, runtime.ErrInvalid):
		s.phase = Failed
		return s, nil
	}
	s.early++
	return retry(s, false)
}

// retry chooses between another run and giving up.
func retry(s state, now bool) (state, []effect) {
	if s.policy.Restart == Never {
		s.phase = Failed
		return s, nil
	}
	s.fails++
	if s.policy.Restart == OnFailure && s.fails > s.policy.Max {
		s.phase = Failed
		if s.policy.Max > 0 {
			s.ending.Reason += fmt.Sprintf("; gave up after %d restarts", s.policy.Max)
		}
		return s, nil
	}
	s.again++
	if now {
		return begin(s)
	}
	s.delay = min(max(2*s.delay, s.policy.Backoff), maxRest)
	s.phase = Backoff
	return s, []effect{rest}
}
