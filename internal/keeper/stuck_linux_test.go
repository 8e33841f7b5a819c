package keeper

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// frozen mounts a file system that keeps its writers waiting, in a sleep that
// no signal ends, until thaw is called.
func frozen(t *testing.T) (dir string, thaw func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no file system can be frozen")
	}
	top := t.TempDir()
	image, dir := filepath.Join(top, "image"), filepath.Join(top, "mount")
	if err := errors.Join(os.WriteFile(image, make([]byte, 8<<20), 0o600), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	for i, command := range [][]string{
		{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}, {"fsfreeze", "-f", dir},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			if i == 2 {
				_ = exec.Command("umount", dir).Run()
			}
			t.Skipf("%s: %v %s", strings.Join(command, " "), err, out)
		}
	}
	thawed := false
	thaw = func() {
		if thawed {
			return
		}
		thawed = true
		if out, err := exec.Command("fsfreeze", "-u", dir).CombinedOutput(); err != nil {
			t.Errorf("%v %s", err, out)
		}
	}
	t.Cleanup(func() {
		thaw()
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
	return dir, thaw
}

// What sleeps where no signal reaches is named with what it waits for; others
// are stopped meanwhile, and it is stopped once it can be.
func TestUninterruptible(t *testing.T) {
	t.Attr("promise", "P2 P6 F28")
	dir, thaw := frozen(t)
	k := open(t)
	w := newWitness(t)
	r := Run{ID: "p/web#1", Argv: []string{"sh", "-c", `echo up; echo x > "$0"/file`, dir}, Dir: "/", Env: env, Stdout: w.write, Stderr: w.write}
	c := start(t, k, r)
	other := start(t, k, Run{ID: "p/other#1", Argv: []string{"sleep", "60"}, Dir: "/", Env: env})
	w.saw(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(limit); ; <-tick.C {
		if p, ok := readProcess(c.PID()); !ok || time.Now().After(until) {
			t.Fatal("the process does not wait")
		} else if p.state == 'D' {
			break
		}
	}
	began := time.Now()
	failed := make(chan error, 1)
	ctx := bounded(t)
	go func() { failed <- c.Stop(ctx, 0) }()
	stopped(t, other, time.Second)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the other run took %v", took)
	}
	var left *SurvivorsError
	if err := <-failed; !errors.As(err, &left) || len(left.Left) != 1 || left.Left[0].PID != c.PID() || !strings.HasPrefix(left.Left[0].Reason, "uninterruptible in ") {
		t.Fatalf("Stop = %v; want process %d named, and what it waits for", err, c.PID())
	}
	t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), left)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Stop took %v", took)
	}
	thaw()
	await(t, c)
	stopped(t, c, 0)
	w.gone(t)
}
