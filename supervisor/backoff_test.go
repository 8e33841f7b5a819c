package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locald/locald/runtime"
)

// TestBackoff writes down what a service that keeps ending comes to: the rests
// between its runs, without their jitter, and when it is given up.
func TestBackoff(t *testing.T) {
	t.Attr("promise", "P8 F29 F30")
	limited := Policy{Restart: OnFailure, Max: 10, Backoff: 500 * time.Millisecond}
	always := Policy{Restart: Always, Max: 10, Backoff: 500 * time.Millisecond}
	tests := []struct {
		name   string
		policy Policy
		ready  []time.Duration // before each end, by turns
		ends   int
	}{
		{"ends at once", limited, []time.Duration{0}, 12},
		{"ends at once, always", always, []time.Duration{0}, 12},
		{"ready for 0.9 s each time", limited, []time.Duration{900 * time.Millisecond}, 12},
		{"ready for a second each time", limited, []time.Duration{time.Second}, 12},
		{"ready for 9.9 s each time", limited, []time.Duration{9900 * time.Millisecond}, 12},
		{"ready for 10 s each time", limited, []time.Duration{10 * time.Second}, 12},
		{"at once, but every fourth time ready for 9.9 s", limited, []time.Duration{0, 0, 0, 9900 * time.Millisecond}, 12},
		{"at once, but every fourth time ready for a minute", limited, []time.Duration{0, 0, 0, time.Minute}, 12},
		{"at once eight times, then ready for a minute: less than twice the last rest", limited, []time.Duration{0, 0, 0, 0, 0, 0, 0, 0, time.Minute}, 12},
		{"at once eight times, then ready for five minutes", limited, []time.Duration{0, 0, 0, 0, 0, 0, 0, 0, 5 * time.Minute}, 12},
		{"no restarts", Policy{Restart: OnFailure, Backoff: time.Second}, []time.Duration{0}, 2},
		{"restart = no", Policy{Restart: Never, Backoff: time.Second}, []time.Duration{0}, 2},
	}
	var got bytes.Buffer
	for _, test := range tests {
		fmt.Fprintln(&got, test.name)
		s := state{policy: test.policy, gate: true, want: Want{Up: true, Generation: 1}, made: 1, run: 1, phase: Starting}
		for i := range test.ends {
			ready := test.ready[i%len(test.ready)]
			s.phase, s.proven = Starting, ready > 0
			s, _ = exited{Run: s.run, Exit: runtime.Exit{Known: true, Code: 1}, ReadyFor: ready}.apply(s)
			line := fmt.Sprintf("  run %-2d ready %-5v  %-9s  %2d in a row", i+1, ready, s.phase, s.fails)
			if s.phase == Backoff {
				line += fmt.Sprintf("  rests %v", s.delay)
				s, _ = rested{s.run}.apply(s)
			}
			fmt.Fprintln(&got, strings.TrimRight(line, " "))
			if s.phase == Failed {
				fmt.Fprintf(&got, "         %s\n", s.ending.Reason)
				break
			}
		}
		fmt.Fprintln(&got)
	}
	golden(t, "testdata/backoff.golden", got.Bytes())
}

func TestRestsAreSpreadByATenthEitherWay(t *testing.T) {
	t.Attr("promise", "P8 F29")
	low, high := time.Hour, time.Duration(0)
	for range 10000 {
		d := jittered(time.Second)
		low, high = min(low, d), max(high, d)
	}
	if low < 900*time.Millisecond || high > 1100*time.Millisecond || high-low < 190*time.Millisecond {
		t.Errorf("between %v and %v", low, high)
	}
}

// TestAnotherDaemonGoesOnWithABackoff: the rest that an earlier daemon began is
// rested to its end, and the next is twice as long.
func TestAnotherDaemonGoesOnWithABackoff(t *testing.T) {
	t.Attr("promise", "P8 F31")
	rt := &fake{errs: []error{errors.New("no memory")}}
	web := service("web", rt)
	web.Policy.Max = 10
	wish := up(web)
	wish.Run, wish.Streak = 6, Streak{Fails: 5, Delay: 16 * time.Second, Left: 7 * time.Second, Reason: "exited with 3"}
	got := keep(t, func(s *Supervisor) {
		s.Apply([]Wish{wish})
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Backoff || now.Fails != 5 || now.Reason != "exited with 3" {
			t.Errorf("right after: %+v", now)
		}
		time.Sleep(8 * time.Second)
		if now := s.Snapshot()[0]; now.Phase != Backoff || now.Fails != 6 || now.Delay != 32*time.Second {
			t.Errorf("after one more failure: %+v", now)
		}
		time.Sleep(time.Minute)
	})
	expect(t, got[:4], "0s web 5 backoff", "7s web 6 preparing", "7s web 6 starting", "7s web 6 backoff")
}

func TestWhatWasGivenUpStaysGivenUp(t *testing.T) {
	t.Attr("promise", "P8 F31")
	rt := &fake{}
	web := service("web", rt)
	wish := up(web)
	wish.Run, wish.Streak = 6, Streak{Fails: 4, Delay: 4 * time.Second, Reason: "exited with 3; gave up after 3 restarts"}
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{wish})
		time.Sleep(time.Hour)
		if now := s.Snapshot()[0]; now.Phase != Failed || rt.starts() != 0 || !strings.Contains(now.Reason, "gave up") {
			t.Errorf("an hour later: %+v after %d starts", now, rt.starts())
		}
		s.Apply([]Wish{{Name: "web", Up: true, Renew: true}})
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Ready || now.Fails != 0 || now.Run != 6 {
			t.Errorf("asked for again: %+v", now)
		}
	})
}

func TestALeavingSupervisorDoesNotWaitForARest(t *testing.T) {
	rt := &fake{}
	wish := up(service("web", rt))
	wish.Run, wish.Streak = 6, Streak{Fails: 1, Delay: time.Minute, Left: time.Minute}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New()
		done := make(chan struct{})
		go func() { defer close(done); s.Serve(ctx) }()
		s.Apply([]Wish{wish})
		synctest.Wait()
		began := time.Now()
		cancel()
		<-done
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}
