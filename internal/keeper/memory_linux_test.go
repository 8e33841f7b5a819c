package keeper

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// squeezed is a service that needs more memory than its control group has.
func squeezed(t *testing.T) (script string) {
	t.Helper()
	g, ok := groupOf("memory")
	if !ok {
		t.Skip("no control group of version 1 has the memory controller")
	}
	dir := filepath.Join(g.top, "keeper-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no control group can be made: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte("20M"), 0o644); err != nil {
		t.Fatal(err)
	}
	return "echo $$ > " + dir + "/cgroup.procs && exec " + hostileProgram(t) + " memory"
}

// A service that the kernel ended for want of memory is told as such, and one
// that somebody killed is not.
func TestKilledForMemory(t *testing.T) {
	t.Attr("promise", "P8 F33")
	script := squeezed(t)
	k := open(t)
	if exit := await(t, start(t, k, shell(t, script))); exit.Signal != "SIGKILL" || exit.Memory == "" {
		t.Errorf("%+v; want a kill for memory", exit)
	}
	if exit := await(t, start(t, k, shell(t, "kill -KILL $$"))); exit.Signal != "SIGKILL" || exit.Memory != "" {
		t.Errorf("%+v; want a kill that has nothing to do with memory", exit)
	}
}

// The kernel takes services before daemon and keeper, and what they fork too.
func TestExpendable(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P4 F34")
	k := open(t)
	r := shell(t, "cat /proc/self/oom_score_adj; sh -c 'cat /proc/self/oom_score_adj'")
	await(t, start(t, k, r))
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(own)))
	if err != nil {
		t.Fatal(err)
	}
	want := "stdout " + strconv.Itoa(min(n+300, 1000))
	if got := lines(t, r.Log); len(got) != 2 || got[0] != want || got[1] != want {
		t.Errorf("got %q; want twice %q", got, want)
	}
}

// A service that signals its group or its parent ends itself, and at most the
// keeper, which is another's test.
func TestSignalsItsGroup(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P4 F35")
	k := open(t)
	neighbour := start(t, k, Run{ID: "p/other#1", Argv: []string{"sleep", "60"}, Dir: "/", Env: env})
	for _, script := range []string{"kill -KILL 0", "trap '' TERM; kill -TERM 0; kill -TERM $PPID; kill -HUP $PPID; kill -KILL $$"} {
		if exit := await(t, start(t, k, shell(t, script))); exit.Signal != "SIGKILL" {
			t.Errorf("%s: %+v", script, exit)
		}
	}
	select {
	case <-neighbour.Done():
		t.Errorf("the neighbour ended: %+v", neighbour.Exit())
	case <-k.Lost():
		t.Error("the keeper was lost")
	default:
	}
	stopped(t, neighbour, 0)
}
