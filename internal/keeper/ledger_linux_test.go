package keeper

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// recordsOf reads what keepers have on record in a directory, as it is.
func recordsOf(t *testing.T, dir string) (all []record) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, recordPrefix+"*"+recordSuffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if r, ok := readRecord(path); ok {
			all = append(all, r)
		}
	}
	return all
}

// onRecord waits until so many processes are on record.
func onRecord(t *testing.T, dir string, want int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	n := -1
	for until := time.Now().Add(limit); n != want; <-tick.C {
		n = 0
		for _, r := range recordsOf(t, dir) {
			for _, run := range r.Runs {
				n += len(run.Processes)
			}
		}
		if time.Now().After(until) {
			t.Fatalf("%d processes are on record; want %d", n, want)
		}
	}
}

// sweepLeft ends what an earlier daemon and its keeper have left, as the next
// daemon does.
func sweepLeft(t *testing.T, dir, owner string) (runs int) {
	t.Helper()
	if err := Wait(bounded(t), dir); err != nil {
		t.Fatal(err)
	}
	found, err := Find(t.Context(), dir, owner)
	if err != nil {
		t.Fatal(err)
	}
	var marks []Mark
	for _, f := range found {
		marks = append(marks, f.Mark)
	}
	if err := End(bounded(t), dir, marks, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if found, err := Find(t.Context(), dir, owner); err != nil || len(found) != 0 {
		t.Errorf("Find = %v, %v; want nothing", found, err)
	}
	return len(marks)
}

// A process that has removed every mark is found by the ledger when daemon and
// keeper were both killed.
func TestUnmarkedBothKilled(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P1 P4 F22")
	c := crash(t, "unmarked")
	onRecord(t, c.dir, 2) // the main process, and the one that hides
	_ = syscall.Kill(c.daemon, syscall.SIGSTOP)
	_ = syscall.Kill(c.keeper, syscall.SIGKILL)
	c.kill(t)
	sweepLeft(t, c.dir, c.owner)
	c.gone(t)
	if left := recordsOf(t, c.dir); len(left) > 0 {
		t.Errorf("records are left: %+v", left)
	}
}

// What is on record is only believed of this boot and of the very process.
func TestRecordIsDoubted(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P3 F15 F17")
	innocent := startInnocent(t)
	m := pin(innocent)
	defer m.close()
	id, ok := identify(m)
	boot, err := Boot()
	if !ok || err != nil {
		t.Fatal(err)
	}
	recycled, unknown, reused := id, id, id
	recycled.Inode++
	unknown.Inode = 0 // a process without our mark
	reused.PID = os.Getppid()
	for _, test := range []struct {
		name   string
		record record
	}{
		{"another boot", record{Boot: "11111111-2222-3333-4444-555555555555", Runs: []runRecorded{{Run: "p/web#1", Processes: []identity{id}}}}},
		{"another inode", record{Boot: boot, Runs: []runRecorded{{Run: "p/web#1", Processes: []identity{recycled}}}}},
		{"no inode and no mark", record{Boot: boot, Runs: []runRecorded{{Run: "p/web#1", Processes: []identity{unknown}}}}},
		{"another PID", record{Boot: boot, Runs: []runRecorded{{Run: "p/web#1", Processes: []identity{reused}}}}},
		{"another owner", record{Boot: boot, Owner: "somebody", Runs: []runRecorded{{Run: "p/web#1", Processes: []identity{id}}}}},
		{"a group that is none", record{Boot: boot, Group: &groupRecord{Dir: "/proc/self", Inode: 1}}},
	} {
		dir, owner := t.TempDir(), uniqueOwner(t)
		if test.record.Owner == "" {
			test.record.Owner = owner
		}
		if err := test.record.write(filepath.Join(dir, recordPrefix+"1"+recordSuffix)); err != nil {
			t.Fatal(err)
		}
		if n := sweepLeft(t, dir, owner); n != 0 {
			t.Errorf("%s: %d runs were found", test.name, n)
		}
		if err := End(bounded(t), dir, []Mark{{Owner: owner, Run: "p/web#1"}}, 0); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if !m.alive() {
			t.Fatalf("%s: the innocent process was ended", test.name)
		}
	}
	// And with all of it right it is the process.
	dir, owner := t.TempDir(), uniqueOwner(t)
	right := record{Boot: boot, Owner: owner, Runs: []runRecorded{{Run: "p/web#1", Processes: []identity{id}}}}
	if err := right.write(filepath.Join(dir, recordPrefix+"1"+recordSuffix)); err != nil {
		t.Fatal(err)
	}
	if n := sweepLeft(t, dir, owner); n != 1 && id.Inode != 0 {
		t.Errorf("%d runs were found; want 1", n)
	}
}

// startInnocent starts a process that no keeper knows.
func startInnocent(t *testing.T) (pid int) {
	t.Helper()
	pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "60"}, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	})
	return pid
}

// Damaged records are of no use, and of no harm.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"boot":"b","owner":"o","keeper":{"pid":1,"start":1},"runs":[{"run":"p/web#1","number":3,"processes":[{"pid":1,"inode":2,"start":3}]}]}`))
	f.Add([]byte(`{"runs":[{"processes":[{"pid":-1},{"pid":0}]}],"group":{"dir":"","inode":0}}`))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "record")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, ok := readRecord(path)
		if !ok || strings.Contains(string(b), "dir") {
			return
		}
		for _, run := range r.Runs {
			for _, id := range run.Processes {
				id.there("nobody")
			}
		}
	})
}

// A run is looked for again only where somebody on the machine has forked since,
// or something has happened to it.
func TestLedgerLooksAgainAfterForks(t *testing.T) {
	t.Parallel()
	l := &ledger{wake: make(chan struct{}, 1), due: map[*run]attention{}}
	r := &run{}
	for _, step := range []struct {
		stirred bool
		newest  string
		looks   bool
	}{
		{true, "7", true},
		{false, "7", false},
		{false, "8", true},
		{true, "8", true},
		{false, "", true},
		{false, "", true},
		{false, "9", true},
	} {
		if step.stirred {
			l.stir(r)
		}
		if got := l.take(l.due[r].at, step.newest)[r]; got != step.looks {
			t.Errorf("%+v: looked: %v", step, got)
		}
	}
	if len(l.due) != 0 || !l.next.IsZero() {
		t.Errorf("after the last look: %d due, the next at %v", len(l.due), l.next)
	}
	before := newest()
	if err := exec.Command("/bin/true").Run(); err != nil {
		t.Fatal(err)
	}
	if before != "" && newest() == before {
		t.Error("a fork is not told")
	}
}
