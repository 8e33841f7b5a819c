package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/ipc"
)

// bombed is the user of the fork bomb: what counts is how many processes a user
// has, so it is nobody else's. most is how many that may be, and beyond is where
// the kernel ends it if the test is wrong.
const (
	bombed = 4243
	most   = 400
	beyond = 800
)

// TestForkBomb has a service fork without end until its user can have no more
// processes. The user can still ask, and stop it; nothing else is touched.
func TestForkBomb(t *testing.T) {
	promise(t, "P7", "F12")
	needOrdinary(t)
	runs, failures := 0, 0
	for _, test := range []struct {
		name, args, stop string
		inTime           bool
	}{
		{"obedient", `"bomb"`, "10s", true},
		{"deaf", `"bomb", "deaf"`, "500ms", true},
		// The kernel gives each session a share of the processors, if not told
		// otherwise, and so all but nothing to whoever is not the bomb.
		{"apart", `"bomb", "deaf", "apart"`, "500ms", false},
	} {
		// Beside other work the times are the machine's, so they are held to where
		// every cell is run, which is alone on it.
		ok := t.Run(test.name, func(t *testing.T) { detonated(t, test.args, test.stop, test.inTime && full()) })
		runs++
		if !ok {
			failures++
		}
	}
	tried(t, runs, failures)
}

func detonated(t *testing.T, args, stop string, inTime bool) {
	program := compiled(t, "testdata/bystander.c")
	tasks := taskLimit(t, beyond)
	s := ownedBy(t, bombed, config(fmt.Sprintf(`[project]
name = "bomb"

[services.other]
type = "worker"
command = ["$PROGRAM", "once", "other.notes"]

[services.bomb]
type = "worker"
command = [%q, %s]
stop_timeout = %q
`, program, args, stop)))
	s.as = func(cmd *exec.Cmd) {
		cmd.Args = append([]string{program, "as", strconv.Itoa(bombed), strconv.Itoa(most), filepath.Join(tasks, "cgroup.procs"), cmd.Path}, cmd.Args[1:]...)
		cmd.Path = program
	}
	s.run("up", "other")
	wanted := 1
	if inTime {
		wanted = times(1, 5)
	}
	// A busy machine gets more attempts, not more time.
	for attempts := 8 * wanted; wanted > 0; attempts-- {
		if attempts == 0 {
			t.Fatal("status took a second or more, or stop two, in every attempt but too few")
		}
		status, stop := s.survives(program)
		if t.Failed() {
			return
		}
		if !inTime || status < time.Second && stop < 2*time.Second {
			wanted--
		}
	}
}

// survives lets the bomb go off, asks while it lasts, and stops it. It returns
// how long the slowest answer and the stop took.
func (s *sandbox) survives(program string) (status, stop time.Duration) {
	t := s.t
	t.Helper()
	before := s.look()
	keeper := s.keeper(before.Daemon.PID)
	s.run("start", "bomb")
	s.full(program)
	var took []time.Duration
	for range times(5, 20) {
		r := s.try("status", "--json")
		took = append(took, r.took)
		if r.code != 0 {
			t.Fatalf("status: %v", r)
		}
	}
	count := len(executing(t, program))
	r := s.try("stop", "bomb")
	left := executing(t, program)
	t.Logf("%d processes; status: %v; stop: %v", count, spread(took), r.took.Round(time.Millisecond))
	if r.code != 0 || len(left) > 0 {
		t.Errorf("stop left %d processes: %v", len(left), r)
	}
	after := s.look()
	if was, is := of(before, "other"), of(after, "other"); is.State != "running" || is.PID != was.PID {
		t.Errorf("the other service is %s as process %d, was %d: %s", is.State, is.PID, was.PID, is.Reason)
	}
	if after.Daemon.PID != before.Daemon.PID || s.keeper(after.Daemon.PID) != keeper {
		t.Error("daemon or keeper is another process than before")
	}
	return percentile(took, 100), r.took
}

// look is the status while not everything runs.
func (s *sandbox) look() ipc.Status {
	s.t.Helper()
	r := s.try("status", "--json")
	var status ipc.Status
	if err := json.Unmarshal([]byte(r.stdout), &status); err != nil {
		s.t.Fatalf("%v: %v", err, r)
	}
	return status
}

// full returns once the bomb has all the processes that it can get.
func (s *sandbox) full(program string) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last, same := 0, 0
	for until := time.Now().Add(limit); same < 4; {
		<-tick.C
		count := len(executing(s.t, program))
		if count == last && count > most/4 {
			same++
		} else {
			same = 0
		}
		last = count
		if time.Now().After(until) {
			s.t.Fatalf("the bomb stays at %d processes", count)
		}
	}
}

// executing is the processes of the bomb's user that execute a program.
func executing(t *testing.T, program string) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if exe, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe")); err == nil && exe == program {
			pids = append(pids, pid)
		}
	}
	return pids
}

// taskLimit is a cgroup that may have so many tasks: a net below the test, in
// case that locald does not end the bomb.
func taskLimit(t *testing.T, limit int) (dir string) {
	t.Helper()
	for _, mount := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		made, err := os.MkdirTemp(mount, "locald-test-")
		if err != nil {
			continue
		}
		dir = made
		err = os.WriteFile(filepath.Join(dir, "pids.max"), []byte(strconv.Itoa(limit)), 0o600)
		if err == nil {
			break
		}
		_ = unix.Rmdir(dir) // it is not the hierarchy that counts tasks
		dir = ""
	}
	if dir == "" {
		t.Skip("no cgroup that could bound a fork bomb")
	}
	t.Cleanup(func() { emptied(t, dir) })
	return dir
}

// emptied ends whatever is still in the cgroup and removes it.
func emptied(t *testing.T, dir string) {
	for range 1000 {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		// With no task more allowed nothing takes over a number while it is killed.
		_ = os.WriteFile(filepath.Join(dir, "pids.max"), []byte("0"), 0o600)
		for field := range strings.FieldsSeq(string(text)) {
			_ = unix.Kill(number(t, field), unix.SIGKILL)
		}
		if unix.Rmdir(dir) == nil {
			return
		}
	}
	t.Errorf("cgroup %s cannot be removed", dir)
}
