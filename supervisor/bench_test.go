package supervisor

import (
	"testing"
	"time"

	"github.com/locald/locald/runtime"
)

// BenchmarkTransitions is the life of a service as its actor goes through it:
// wanted, prepared, started, ready, killed, and all of it again. One operation
// is one event.
func BenchmarkTransitions(b *testing.B) {
	s := state{policy: Policy{Restart: Always, Backoff: time.Second}, gate: true, phase: Stopped}
	s, _ = wanted{Want{Up: true, Generation: 1}}.apply(s)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		var e event
		switch i % 4 {
		case 0:
			e = prepared{Run: s.run}
		case 1:
			e = started{Run: s.run}
		case 2:
			e = probed{s.run, Finding{Ready: true}}
		case 3:
			e = exited{Run: s.run, Exit: runtime.Exit{Known: true, Signal: "killed"}, ReadyFor: time.Minute}
		}
		s, _ = e.apply(s)
	}
	if s.phase == Stopped || s.phase == Failed {
		b.Fatalf("it is %s", s.phase)
	}
}
