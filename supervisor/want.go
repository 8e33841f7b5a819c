package supervisor

import "time"

// Want is what the user last asked for. It is a value, not a queue of
// commands: only the latest matters. A restart is asking for the next
// generation.
type Want struct {
	Up         bool
	Generation int
	Force      bool // when it has to stop: at once, without asking first
}

// Policy is how a service's own ending is judged.
type Policy struct {
	Restart Restart
	Task    bool          // ending with 0 is what it is for
	Max     int           // restarts in a row before giving up, for OnFailure
	Backoff time.Duration // the first rest; it doubles from one to the next
}

// Streak is what a service's failures in a row have come to, so that another
// daemon goes on from there.
type Streak struct {
	Fails  int           // endings in a row that called for a restart
	Delay  time.Duration // the last rest
	Left   time.Duration // how much of it is left; 0 when the service does not rest
	Reason string        // of the last failure
}

// After is the streak once the service has been ready for a while.
func (s Streak) After(ready time.Duration) Streak {
	if ready >= max(forgiven, 2*s.Delay) {
		return Streak{}
	}
	return s
}

// Restart says which endings start another run.
type Restart string

// The restart policies.
const (
	Always    Restart = "always"
	OnFailure Restart = "on-failure"
	Never     Restart = "no"
)

// How endings are judged, as the surface promises.
const (
	maxRest    = 60 * time.Second
	atOnce     = time.Second      // ready for this long: the next run starts at once
	forgiven   = 10 * time.Second // ready for this long, or twice the last rest: failures in a row are forgotten
	retryAfter = 5 * time.Second  // how soon a runtime that is away is asked again
)
