package system

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/ipc"
)

// logDir is where the output of a service is stored.
func (s *sandbox) logDir(name string) string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.places().Dir, "projects", "*", "logs", name))
	if err != nil || len(found) != 1 {
		s.t.Fatalf("log stores of %s: %v, %v", name, found, err)
	}
	return found[0]
}

// lines is what "locald logs --json" prints, all of it.
func (s *sandbox) lines(args ...string) []ipc.LogLine {
	s.t.Helper()
	var all []ipc.LogLine
	for line := range bytes.Lines([]byte(s.run(append([]string{"logs", "--json"}, args...)...).stdout)) {
		var l ipc.LogLine
		if err := json.Unmarshal(line, &l); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		all = append(all, l)
	}
	return all
}

// TestLogOfStrangeOutput: what services write comes back as they wrote it.
func TestLogOfStrangeOutput(t *testing.T) {
	promise(t, "P12", "F53", "F54", "F55", "F56", "F57")
	s := newSandbox(t, `[project]
name = "strange"

[services.progress]
type = "task"
command = 'i=0; while [ $i -lt 10000 ]; do printf "%d of 10000\r" $i; i=$((i+1)); done; printf "all of it\n"'

[services.turns]
type = "task"
command = 'i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done'

[services.bytes]
type = "task"
command = 'cat bytes'
`)
	// Every byte, a character over the end of a read of the pipe, UTF-16, and no
	// newline at the end.
	var odd []byte
	for b := range 256 {
		odd = append(odd, byte(b))
	}
	odd = append(odd, bytes.Repeat([]byte("x"), 64<<10-len(odd)-1)...)
	odd = append(odd, "€\nh\x00i\x00\n\x00 and no end"...)
	s.write("bytes", string(odd))
	s.run("up")

	// A line is cut every 16 KiB, and of each piece the last state is shown.
	if got := s.run("logs", "progress", "--no-prefix").stdout; !strings.Contains(got, "\nall of it\n") || strings.ContainsAny(got, "\r\x1b") || len(got) > 300 {
		t.Errorf("progress is shown as %.400q", got)
	}
	if got := s.run("logs", "progress", "--raw").stdout; strings.Count(got, "\r") != 10000 {
		t.Errorf("of 10000 updates %d are stored", strings.Count(got, "\r"))
	}
	if got := s.run("logs", "bytes", "--raw").stdout; got != string(odd) {
		t.Errorf("%d bytes came back of %d", len(got), len(odd))
	}
	next := map[string]int{}
	last := uint64(0)
	for _, l := range s.lines("turns") {
		if l.Seq <= last {
			t.Fatalf("line %d follows line %d", l.Seq, last)
		}
		last = l.Seq
		if want := fmt.Sprintf("%s %d", l.Stream[3:], next[l.Stream]); l.Stream != "event" && l.Line != want {
			t.Fatalf("%s has %q where %q was due", l.Stream, l.Line, want)
		}
		next[l.Stream]++
	}
	if next["stdout"] != 300 || next["stderr"] != 300 {
		t.Errorf("lines: %v", next)
	}
}

// TestLogTakenAway: somebody deletes, moves, cuts and replaces the file that is
// written, while it is. The service does not notice, what comes next is stored,
// and the log says how much is missing and why.
func TestLogTakenAway(t *testing.T) {
	promise(t, "P11", "F60")
	s := newSandbox(t, config(`[project]
name = "taken"

[services.ticker]
command = ["$PROGRAM", "tick", "5ms"]
`))
	s.run("up")
	before := s.status()
	innocent := filepath.Join(s.root, "innocent")
	if err := os.WriteFile(innocent, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		why   string
		spoil func(path string) error
	}{
		{"taken away", os.Remove},
		{"taken away", func(path string) error { return os.Rename(path, path+".1") }},
		{"cut", func(path string) error { return os.Truncate(path, 0) }},
		{"taken away", func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Symlink(innocent, path)
		}},
	} {
		s.line("ticker", "tick ") // something is in it
		segments, err := filepath.Glob(filepath.Join(s.logDir("ticker"), "*.log"))
		if err != nil || len(segments) == 0 {
			t.Fatalf("segments %v, %v", segments, err)
		}
		after := s.lines("ticker")
		newest := after[len(after)-1].Seq
		if err := step.spoil(segments[len(segments)-1]); err != nil {
			t.Fatal(err)
		}
		said := false
		s.follow("ticker", func(l ipc.LogLine) bool {
			if l.Seq <= newest {
				return false
			}
			said = said || l.Stream == "gap" && l.MissingBytes > 0 && strings.Contains(l.Line, step.why)
			return said && l.Stream == "stdout"
		})
		text := s.run("logs", "ticker", "--no-prefix").stdout
		if !strings.Contains(text, "bytes are missing here: the log file was "+step.why+"]") {
			t.Errorf("step %d: the log does not say that it was %s: %.300s", i, step.why, text)
		}
	}
	s.same(before)
	if got, err := os.ReadFile(innocent); err != nil || string(got) != "mine\n" {
		t.Errorf("the file behind the link is %q, %v", got, err)
	}
}

// TestManyReaders: of 200 who follow a service at once 180 never read. The
// others get every line, memory stays bounded though much more was written than
// that, others are answered, and nothing is left of those who have gone.
func TestManyReaders(t *testing.T) {
	promise(t, "P11", "F51")
	const (
		readers, alive = 200, 20
		size           = 5_000_000 // some 8 MB for each as it is sent
		memory         = readers * 3 << 20
	)
	s := newSandbox(t, config(fmt.Sprintf(`[project]
name = "readers"

[services.spew]
command = ["$PROGRAM", "spew", "%d", "took"]
`, size)))
	fifo := filepath.Join(s.dir, "took")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("up")
	status := s.status()
	before, files := peak(t, status.Daemon.PID), s.openFiles(status.Daemon.PID)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	client := &ipc.Client{Socket: s.places().Socket}
	var dead []*ipc.Reader
	var reading sync.WaitGroup
	counts := make([]int, alive)
	for i := range readers {
		stream, err := client.Stream(ctx, ipc.CallLogs, ipc.LogsArgs{Project: ipc.Project{Dir: s.dir}, Services: []string{"spew"}, Follow: true, Tail: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		if i >= alive {
			dead = append(dead, stream)
			continue
		}
		reading.Go(func() {
			defer stream.Close()
			for {
				var l ipc.LogLine
				if stream.Next(&l) != nil {
					return
				}
				if l.Stream == "stdout" {
					counts[i]++
				}
				if l.Line == "end 1" {
					return
				}
			}
		})
	}
	if err := unix.Kill(of(status, "spew").PID, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(fifo); err != nil { // the service is through
		t.Fatal(err)
	}
	began := time.Now()
	s.run("status")
	answered := time.Since(began)
	reading.Wait()
	const want = size/100 + 1 // and the last
	for i, got := range counts {
		if got != want {
			t.Fatalf("reader %d got %d lines, want %d", i, got, want)
		}
	}
	grew := peak(t, status.Daemon.PID) - before
	t.Logf("status in %v, daemon +%d MiB with %d readers", answered.Round(time.Millisecond), grew>>20, readers)
	if grew > memory {
		t.Errorf("the daemon grew by %d bytes, want at most %d", grew, memory)
	}
	for _, stream := range dead {
		_ = stream.Close()
	}
	deadline := time.Now().Add(limit)
	for s.openFiles(status.Daemon.PID) > files+2 {
		if time.Now().After(deadline) {
			t.Fatalf("the daemon has %d files open, and had %d", s.openFiles(status.Daemon.PID), files)
		}
		s.status()
	}
	s.same(status)
}

func (s *sandbox) openFiles(pid int) int {
	s.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(entries)
}
