package supervisor

// HopelessAfter is how often a service may end before it is ready until those
// who wait for it are told that it failed. The supervisor itself goes on.
const HopelessAfter = 3

// Hopeless reports whether waiting for the service makes no sense: it failed,
// or keeps ending before it is ready.
func (s Status) Hopeless() bool {
	return !s.Stale() && (s.Phase == Failed || s.Early >= HopelessAfter)
}

// View is the services of a project at one moment.
type View struct {
	Status map[string]Status
	Deps   map[string][]Dep
}

// Blocked says what keeps a service that waits from starting, and whether that
// is for good: a dependency that has failed or is not wanted will not come by
// itself. The graph has no cycles.
func (v View) Blocked(name string) (why string, forGood bool) {
	for _, d := range v.Deps[name] {
		s, known := v.Status[d.Service]
		switch {
		case !known:
			return d.Service + " is not there", true
		case d.met(s), v.Status[name].Alone && !s.Want.Up:
			continue
		case s.Stale():
		case s.Hopeless():
			return d.Service + " failed", true
		case !s.Want.Up:
			return d.Service + " is stopped", true
		case s.Phase == Finished && !s.Task && s.Generation == s.Want.Generation:
			return d.Service + " has ended", true
		case s.Phase == Waiting:
			if _, lost := v.Blocked(d.Service); lost {
				return "waits for " + d.Service + ", which cannot start", true
			}
		}
		why = either(why, "waits for "+d.Service)
	}
	return why, false
}
