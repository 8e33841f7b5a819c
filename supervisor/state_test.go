package supervisor

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; review with: go test ./supervisor -update && git diff", path)
	}
}

// TestTransitions writes down what every event does in every phase. The golden
// file is the state diagram: a change of behaviour is a change of that file.
func TestTransitions(t *testing.T) {
	exit := func(r, code int, ready time.Duration) event {
		return exited{Run: r, Exit: runtime.Exit{Known: true, Code: code}, ReadyFor: ready}
	}
	events := []struct {
		name string
		make func(run, generation int) event
	}{
		{"want down", func(_, g int) event { return wanted{Want{Up: false, Generation: g + 1}} }},
		{"want down by force", func(_, g int) event { return wanted{Want{Up: false, Generation: g + 1, Force: true}} }},
		{"want up", func(_, g int) event { return wanted{Want{Up: true, Generation: g + 1}} }},
		{"want the same", func(_, g int) event { return wanted{Want{Up: true, Generation: g}} }},
		{"want, overtaken", func(_, g int) event { return wanted{Want{Up: false, Generation: g - 1}} }},
		{"gate opens", func(_, _ int) event { return gated{true} }},
		{"gate closes", func(_, _ int) event { return gated{false} }},
		{"prepared", func(r, _ int) event { return prepared{Run: r} }},
		{"prepared, failing", func(r, _ int) event { return prepared{r, errors.New("no route")} }},
		{"prepared, engine away", func(r, _ int) event { return prepared{r, runtime.ErrUnavailable} }},
		{"started", func(r, _ int) event { return started{Run: r} }},
		{"started, failing", func(r, _ int) event { return started{r, errors.New("no memory")} }},
		{"started, invalid", func(r, _ int) event { return started{r, runtime.ErrInvalid} }},
		{"probe passed", func(r, _ int) event { return probed{r, Finding{Ready: true}} }},
		{"probe failed", func(r, _ int) event { return probed{r, Finding{}} }},
		{"exited 0", func(r, _ int) event { return exit(r, 0, 0) }},
		{"exited 1", func(r, _ int) event { return exit(r, 1, 0) }},
		{"exited 1 after a second", func(r, _ int) event { return exit(r, 1, time.Second) }},
		{"exited, old run", func(r, _ int) event { return exit(r-1, 1, 0) }},
		{"exited, not released", func(r, _ int) event { return exited{Run: r, Err: errors.New("busy")} }},
		{"stop failed", func(r, _ int) event { return stopFailed{r, errors.New("still running")} }},
		{"rested", func(r, _ int) event { return rested{r} }},
	}
	policies := []struct {
		name string
		Policy
	}{
		{"on-failure", Policy{Restart: OnFailure, Max: 3, Backoff: time.Second}},
		{"no", Policy{Restart: Never}},
		{"always", Policy{Restart: Always, Backoff: time.Second}},
		{"a task", Policy{Restart: Never, Task: true}},
	}
	var got bytes.Buffer
	for i, policy := range policies {
		fmt.Fprintf(&got, "restart = %s\n\n", policy.name)
		for _, phase := range phases {
			rows := 0
			for _, ev := range events {
				before := state{
					policy: policy.Policy, gate: phase != Waiting,
					want: Want{Up: phase != Stopped, Generation: 1},
					made: 1, run: 2, phase: phase, proven: phase == Ready || phase == Unready,
				}
				after, effects := ev.make(2, 1).apply(before)
				if after.phase == before.phase && len(effects) == 0 {
					continue // nothing to see
				}
				if i > 0 && same(ev.make(2, 1), before, policies[0].Policy, after, effects) {
					continue // as under on-failure
				}
				line := fmt.Sprintf("%-9s  %-24s  %-9s  %s", phase, ev.name, after.phase, join(effects))
				fmt.Fprintln(&got, strings.TrimRight(line, " "))
				rows++
			}
			if rows > 0 {
				fmt.Fprintln(&got)
			}
		}
	}
	golden(t, "testdata/transitions.golden", got.Bytes())
}

// same reports whether another policy would have moved the service alike.
func same(e event, before state, other Policy, after state, effects []effect) bool {
	before.policy = other
	s, f := e.apply(before)
	return s.phase == after.phase && join(f) == join(effects)
}

func join(effects []effect) string {
	words := make([]string, len(effects))
	for i, e := range effects {
		words[i] = string(e)
	}
	return strings.Join(words, ", ")
}

// TestAnyOrder tries every order of events to a depth, in a world that obeys
// physics, and checks what must hold in all of them.
func TestAnyOrder(t *testing.T) {
	w := walker{t: t, seen: map[world]int{}}
	w.walk(world{state: state{policy: Policy{Restart: Always}, phase: Stopped, gate: true}}, 9)
	t.Logf("%d distinct worlds", len(w.seen))
}

// world is a service and what is true of it outside the supervisor.
type world struct {
	state
	live      bool // an instance runs
	coming    bool // Start has been called and has not returned
	preparing bool
}

type walker struct {
	t    *testing.T
	seen map[world]int // how deep it has been looked at from there
}

func (w walker) walk(now world, depth int) {
	key := now
	key.run, key.made, key.want.Generation, key.early, key.delay, key.again = 0, now.want.Generation-now.made, 0, 0, 0, 0
	key.fails, key.ending, key.detail, key.hint = min(key.fails, 3), ending{}, "", ""
	if depth == 0 || w.seen[key] >= depth {
		return
	}
	w.seen[key] = depth
	for _, e := range now.possible() {
		w.walk(w.after(now, e), depth-1)
	}
}

// possible lists what may happen next.
func (now world) possible() []event {
	run, next := now.run, now.want.Generation+1
	events := []event{
		wanted{Want{Up: true, Generation: next}},
		wanted{Want{Up: false, Generation: next}},
		wanted{Want{Up: false, Generation: next, Force: true}},
		gated{true},
		gated{false},
		rested{run},
	}
	if now.preparing {
		events = append(events, prepared{Run: run}, prepared{run, errors.New("no route")}, prepared{run, runtime.ErrUnavailable})
	}
	if now.coming {
		events = append(events, started{Run: run}, started{run, errors.New("no memory")})
	}
	if now.live {
		events = append(events, probed{run, Finding{Ready: true}}, probed{run, Finding{}},
			exited{Run: run, Exit: runtime.Exit{Known: true, Code: 1}}, stopFailed{run, errors.New("still running")})
	}
	return events
}

// after lets e happen and checks the outcome.
func (w walker) after(now world, e event) world {
	next, effects := e.apply(now.state)
	after := world{state: next, live: now.live, coming: now.coming, preparing: now.preparing}
	switch e := e.(type) {
	case prepared:
		after.preparing = false
	case started:
		after.coming, after.live = false, e.Err == nil
	case exited:
		after.live = false
	}
	for _, f := range effects {
		switch f {
		case start, prepare:
			if after.live || after.coming || after.preparing {
				w.t.Fatalf("%v, then %#v: a second instance", now.phase, e)
			}
			after.coming, after.preparing = f == start, f == prepare
		}
	}
	if (after.live || after.coming) && !next.phase.running() && !next.stuck {
		w.t.Fatalf("%v, then %#v: an instance is forgotten in %v", now.phase, e, next.phase)
	}
	if after.preparing && !next.phase.Live() {
		w.t.Fatalf("%v, then %#v: what prepares is forgotten in %v", now.phase, e, next.phase)
	}
	return after
}
