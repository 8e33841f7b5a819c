package supervisor

// Phase is where a service is between what is wanted and what is observed.
type Phase string

// The phases. testdata/transitions.golden lists every move between them.
const (
	Stopped   Phase = "stopped"   // nothing runs, nothing is wanted
	Waiting   Phase = "waiting"   // wanted; a dependency is not there
	Preparing Phase = "preparing" // pulling, creating data, checking
	Starting  Phase = "starting"  // an instance exists or soon will; not ready yet
	Ready     Phase = "ready"     // an instance runs and has been found ready
	Unready   Phase = "unready"   // an instance runs; its probe has stopped passing
	Stopping  Phase = "stopping"  // the instance has been asked to end
	Backoff   Phase = "backoff"   // it ended badly; the next run waits
	Finished  Phase = "finished"  // it ended well, and its policy lets it rest
	Failed    Phase = "failed"    // it ended badly, and its policy lets it be
)

var phases = []Phase{Stopped, Waiting, Preparing, Starting, Ready, Unready, Stopping, Backoff, Finished, Failed}

// Live reports whether something of a run exists in this phase, or may soon.
func (p Phase) Live() bool {
	switch p {
	case Preparing, Starting, Ready, Unready, Stopping:
		return true
	default:
		return false
	}
}

// running reports whether an instance exists in this phase, or may soon.
func (p Phase) running() bool { return p.Live() && p != Preparing }
