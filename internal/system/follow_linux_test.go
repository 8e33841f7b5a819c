package system

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// promptly is within what "locald logs -f" prints what a container writes.
const promptly = 50 * time.Millisecond

// A clock writes so many lines a run, and there are so many runs.
const (
	clockLines = 80
	clockEvery = 20 * time.Millisecond
	clockRuns  = 4
)

// TestFollow compares the clock that a container prints with the time at which
// the line comes out of "locald logs -f", over restarts of the container. No
// line may be missing, the last ones before an end included. Another attempt is
// made when the machine was busy with something else; the bound is the same.
func TestFollow(t *testing.T) {
	needEngine(t)
	const attempts = 3
	for attempt := 1; ; attempt++ {
		delays := follow(t)
		if t.Failed() {
			return
		}
		worst := percentile(delays, 99)
		t.Logf("from the write to the output of logs -f: %s", spread(delays))
		if worst <= promptly {
			return
		}
		if attempt == attempts {
			t.Fatalf("99 of 100 lines within %v, want %v", worst, promptly)
		}
	}
}

func follow(t *testing.T) (delays []time.Duration) {
	s := newSandbox(t, config(fmt.Sprintf(`[project]
name = "follow"

[services.clock]
image = "locald-test/shell:1"
entrypoint = ["/program"]
command = ["clock", "%d", "%v"]
volumes = ["$PROGRAM:/program:ro"]
restart = "always"
backoff = "50ms"
`, clockLines, clockEvery)))
	s.run("up")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := s.command(ctx, "logs", "-f", "--tail", "all", "--raw")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }() // ended by us
	next := map[string]int{"out": 0, "err": 1}
	current := 1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		at := time.Now()
		// "out 1 4 1795418970176442099": stream, run, number, time.
		words := strings.Fields(lines.Text())
		if len(words) != 4 || words[0] != "out" && words[0] != "err" {
			continue // an event
		}
		run, number, wrote := number(t, words[1]), number(t, words[2]), time.Unix(0, int64(number(t, words[3])))
		if run != current {
			if next["out"] != clockLines || next["err"] != clockLines+1 {
				t.Fatalf("run %d ended with %v of %d lines", current, next, clockLines)
			}
			if current = run; run > clockRuns {
				return delays
			}
			next = map[string]int{"out": 0, "err": 1}
		}
		if number != next[words[0]] {
			t.Fatalf("run %d: line %d of %s came where %d was due", run, number, words[0], next[words[0]])
		}
		next[words[0]] += 2
		if wrote.After(began) { // what was written before is not followed but read
			delays = append(delays, at.Sub(wrote))
		}
	}
	t.Fatalf("logs -f ended after run %d, %v", current, next)
	return nil
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
