package supervisor

import (
	"errors"
	"time"

	"github.com/locald/locald/runtime"
)

// The events. One that names a run other than the current one is old news and
// changes nothing, so a late timer or a slow probe needs no cancelling to be
// harmless.
type (
	wanted   struct{ Want }      // the user asked
	gated    struct{ Open bool } // the dependencies changed
	prepared struct {
		Run int
		Err error
	}
	started struct {
		Run int
		Err error
	}
	probed struct {
		Run int
		Finding
	}
	exited struct {
		Run      int
		Exit     runtime.Exit
		ReadyFor time.Duration // how long it had been ready
		Err      error         // not nil: what it held could not all be released
	}
	stopFailed struct {
		Run int
		Err error
	}
	rested struct{ Run int } // the rest is over
)

// event is something that happened. Its apply has no clock, no lock and no I/O.
type event interface {
	apply(s state) (state, []effect)
}

func (e wanted) apply(s state) (state, []effect) {
	switch {
	case e.Generation < s.want.Generation:
		return s, nil // overtaken by a later wish
	case e.Generation == s.want.Generation:
		hurry := e.Force && !s.want.Force
		s.want = e.Want
		if hurry && s.phase == Stopping {
			return s, []effect{stop}
		}
		return converge(s)
	}
	s.want, s.fails, s.early, s.delay, s.again = e.Want, 0, 0, 0, 0
	if e.Force && s.phase == Stopping {
		return s, []effect{stop}
	}
	return converge(s)
}

func (e gated) apply(s state) (state, []effect) {
	s.gate = e.Open
	if s.phase == Waiting {
		return begin(s)
	}
	return s, nil
}

func (e prepared) apply(s state) (state, []effect) {
	switch {
	case e.Run != s.run:
		return s, nil
	case s.phase == Stopping:
		return settle(s)
	case s.phase != Preparing:
		return s, nil
	case e.Err != nil:
		return fail(s, e.Err)
	}
	s.phase = Starting
	return s, []effect{start}
}

func (e started) apply(s state) (state, []effect) {
	switch {
	case e.Run != s.run:
		return s, nil
	case s.phase == Stopping && e.Err != nil:
		return settle(s)
	case s.phase == Stopping: // asked to stop while Start was in flight
		return s, []effect{watch, stop}
	case s.phase != Starting:
		return s, nil
	case e.Err != nil:
		return fail(s, e.Err)
	}
	return s, []effect{watch}
}

func (e probed) apply(s state) (state, []effect) {
	if e.Run != s.run {
		return s, nil
	}
	switch s.phase {
	case Starting, Unready:
		s.detail, s.hint, s.overdue = e.Detail, e.Hint, e.Overdue
		if e.Ready {
			s.phase, s.proven, s.early, s.ending = Ready, true, 0, ending{}
		}
	case Ready:
		s.detail, s.hint = e.Detail, e.Hint
		if !e.Ready {
			s.phase = Unready
		}
	default: // a run that is over, or ends, is not judged any more
	}
	return s, nil
}

func (e exited) apply(s state) (state, []effect) {
	if e.Run == s.run && s.phase == Failed && s.stuck && e.Err == nil {
		return settle(s) // what could not be ended has ended
	}
	if e.Run != s.run || !s.phase.running() {
		return s, nil
	}
	exit := e.Exit
	s.detail, s.hint = "", ""
	if e.Err != nil {
		return stopFailed{e.Run, e.Err}.apply(s)
	}
	if s.phase == Stopping {
		s.ending = ending{Exit: &exit}
		return settle(s)
	}
	if e.ReadyFor >= max(forgiven, 2*s.delay) {
		s.fails, s.delay = 0, 0
	}
	if !s.proven {
		s.early++
	}
	s.ending = ending{Reason: exit.String(), Code: "exited", Exit: &exit}
	well := exit.Known && exit.Code == 0
	switch {
	case s.policy.Task && well, well && s.proven && s.policy.Restart != Always:
		s.phase, s.ending.Code = Finished, ""
		return s, nil
	case well && s.policy.Restart != Always:
		s.phase = Failed
		s.ending.Reason = "exited with 0 before it was ready"
		s.ending.Hint = `type = "task"`
		return s, nil
	}
	return retry(s, e.ReadyFor >= atOnce)
}

func (e stopFailed) apply(s state) (state, []effect) {
	if e.Run != s.run || !s.phase.running() {
		return s, nil
	}
	s.phase, s.stuck = Failed, true
	s.ending = ending{Reason: e.Err.Error(), Code: "stop_failed"}
	if errors.Is(e.Err, runtime.ErrUnavailable) {
		// It was decided to end it; that is tried again until the runtime is back.
		s.delay = retryAfter
		return s, []effect{rest}
	}
	return s, nil
}

func (e rested) apply(s state) (state, []effect) {
	switch {
	case e.Run != s.run:
	case s.phase == Backoff:
		return begin(s)
	case s.phase == Failed && !s.stuck && s.want.Up && s.gate:
		return attempt(s) // the runtime was away; nothing of the run has been
	case s.phase == Failed:
		return begin(s)
	}
	return s, nil
}
