package supervisor

import (
	"context"
	"fmt"
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

// BenchmarkUp brings services up that cost nothing themselves: what is left is
// what the supervisor does for each. It is to grow with their number, no faster.
func BenchmarkUp(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bringUp(b, n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/service")
		})
	}
}

func bringUp(b *testing.B, n int) {
	s, rt := New(), &fake{}
	ctx, cancel := context.WithCancel(b.Context())
	over := make(chan struct{})
	go func() { defer close(over); s.Serve(ctx) }()
	wishes := make([]Wish, n)
	for i := range wishes {
		one := service(fmt.Sprintf("s%d", i), rt)
		one.Check = func(_ context.Context, _ int, _ runtime.Instance, report func(Finding)) { report(Finding{Ready: true}) }
		wishes[i] = Wish{Name: one.Name, Up: true, Service: one}
	}
	sub, end := s.Subscribe(wishes...)
	for up := map[string]bool{}; len(up) < n; {
		changes, err := sub.Next(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range changes {
			if c.Status.Up() {
				up[c.Status.Service] = true
			}
		}
	}
	end()
	cancel()
	<-over
}
