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
