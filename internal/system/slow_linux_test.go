package system

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSlowReader: a "logs -f" that is stopped while a service prints much
// neither slows the service nor costs memory; when it goes on it gets to the
// end.
func TestSlowReader(t *testing.T) {
	promise(t, "P11", "F50")
	const (
		size   = 200 << 20
		rounds = 3
		memory = 64 << 20 // what daemon and keeper may grow by, each
	)
	s := newSandbox(t, config(fmt.Sprintf(`[project]
name = "slow"

[services.spew]
command = ["$PROGRAM", "spew", "%d", "took"]
`, size)))
	fifo := filepath.Join(s.dir, "took")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("up")
	status := s.status()
	keeper := s.keeper(status.Daemon.PID)
	daemonBefore, keeperBefore := peak(t, status.Daemon.PID), peak(t, keeper)
	spew := func() time.Duration {
		t.Helper()
		if err := unix.Kill(of(status, "spew").PID, unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(fifo) // waits for the writer, and for its end
		if err != nil {
			t.Fatal(err)
		}
		took, err := time.ParseDuration(string(text))
		if err != nil {
			t.Fatal(err)
		}
		return took
	}
	var alone, watched []time.Duration
	for n := range rounds {
		alone = append(alone, spew())
		watched = append(watched, s.withStopped(spew, fmt.Sprintf("end %d", 2*n+2)))
	}
	daemonGrew, keeperGrew := peak(t, status.Daemon.PID)-daemonBefore, peak(t, keeper)-keeperBefore
	t.Logf("%d MiB in %v, with a reader that does not read in %v; daemon +%d MiB, keeper +%d MiB",
		size>>20, alone, watched, daemonGrew>>20, keeperGrew>>20)
	if quick, slow := slices.Min(alone), slices.Min(watched); slow > 2*quick+100*time.Millisecond {
		t.Errorf("at best %v, and %v with a reader that does not read", quick, slow)
	}
	if daemonGrew > memory || keeperGrew > memory {
		t.Errorf("daemon +%d, keeper +%d bytes, want at most %d", daemonGrew, keeperGrew, memory)
	}
	after := s.status()
	if of(after, "spew").PID != of(status, "spew").PID {
		t.Error("the service was restarted")
	}
	s.exactly(after)
}

// withStopped does something while a follower is stopped, and then lets it read
// until the line comes.
func (s *sandbox) withStopped(do func() time.Duration, last string) time.Duration {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	cmd := s.command(ctx, "logs", "-f", "--raw", "--tail", "1", "spew")
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }() // ended by us
	lines := bufio.NewScanner(out)
	if !lines.Scan() { // it follows
		s.t.Fatalf("logs -f: %v", lines.Err())
	}
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	took := do()
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
	for lines.Scan() {
		if lines.Text() == last {
			return took
		}
	}
	s.t.Fatalf("logs -f ended before %q: %v", last, lines.Err())
	return 0
}

// peak is the most memory that a process ever had, in bytes.
func peak(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return number(t, strings.Fields(value)[0]) << 10
		}
	}
	t.Fatalf("no VmHWM of %d", pid)
	return 0
}
