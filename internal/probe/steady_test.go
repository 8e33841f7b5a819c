package probe

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestAPauseOfTheDaemonIsNotTheInstancesFault: an attempt that was in flight
// when the daemon was stopped fails late, as timers do then. It counts for
// nothing, and neither does the time.
func TestAPauseOfTheDaemonIsNotTheInstancesFault(t *testing.T) {
	t.Attr("promise", "P19 F26")
	for _, test := range []struct {
		name          string
		before, after int  // attempts that pass before the pause, and how many after
		bad           bool // it says that the instance is not ready
	}{
		{"ready before and after", 3, 5, false},
		{"not ready yet", 0, 5, false},
		{"ready before, gone after", 3, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				p := Policy{Interval: 100 * time.Millisecond, Timeout: 200 * time.Millisecond, Retries: 1, StartPeriod: 10 * time.Second}
				attempts := 0
				var bad []Finding
				p.steadily(ctx, func(f Finding) {
					if !f.Ready {
						bad = append(bad, f)
					}
				}, func(context.Context) string {
					attempts++
					n := attempts - test.before
					switch {
					case n < 1:
						return ""
					case n == 1:
						time.Sleep(time.Minute)
						return "deadline exceeded"
					case n <= 1+test.after:
						return ""
					case test.after > 0:
						cancel()
					}
					if n > 5 {
						cancel()
					}
					return "connection refused"
				})
				if (len(bad) > 0) != test.bad {
					t.Errorf("it says %+v", bad)
				}
			})
		})
	}
}
