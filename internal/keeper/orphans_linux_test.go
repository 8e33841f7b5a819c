package keeper

import (
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the daemon's other commands leave behind is reaped, and the commands
// themselves are left to those who wait for them.
func TestOrphansOfCommands(t *testing.T) {
	t.Parallel()
	open(t)
	var commands sync.WaitGroup
	for range 40 {
		commands.Go(func() {
			out, err := exec.Command("sh", "-c", "sleep 0.01 >/dev/null & echo $!; exit 7").Output()
			var failed *exec.ExitError
			if !errors.As(err, &failed) || failed.ExitCode() != 7 {
				t.Errorf("the command ended with %v; want 7", err)
				return
			}
			var orphan int
			if n, _ := fmt.Sscan(string(out), &orphan); n != 1 {
				t.Errorf("the command says %q", out)
				return
			}
			was, _ := readProcess(orphan)
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for until := time.Now().Add(limit); ; <-tick.C {
				if is, ok := readProcess(orphan); !ok || is.start != was.start {
					break
				}
				if time.Now().After(until) {
					t.Errorf("process %d is not reaped", orphan)
					break
				}
			}
		})
	}
	commands.Wait()
}

// What this process has started, or was there before, is not an orphan.
func TestStrangers(t *testing.T) {
	k := open(t)
	own := exec.Command("sleep", "60")
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = own.Process.Kill()
		_ = own.Wait()
	}()
	for _, pid := range k.orphans.strangers(nil) {
		if pid == own.Process.Pid || pid == k.PID() {
			t.Errorf("process %d is taken for an orphan", pid)
		}
	}
	before := start(t, k, Run{ID: "p/web#1", Argv: []string{"sleep", "60"}, Dir: "/", Env: env})
	if err := unix.Kill(k.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-k.Lost()
	if again := adoptOrphans("another"); again.before[before.PID()] == 0 {
		t.Errorf("process %d was there before, and is not known", before.PID())
	}
	if err := k.Clear(bounded(t), time.Second); err != nil {
		t.Error(err)
	}
	if m := pin(before.PID()); m.alive() {
		t.Errorf("process %d is left", before.PID())
	}
}
