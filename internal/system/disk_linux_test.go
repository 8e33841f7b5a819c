package system

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/ipc"
)

const ticking = `[project]
name = "disk"

[services.app]
command = ["$PROGRAM", "once", "app.notes"]

[services.ticker]
command = ["$PROGRAM", "tick", "5ms"]
`

// TestDiskFull fills the disk of the state directory while services run. They
// go on; a command that would have to write says why it cannot, and changes
// nothing; all is well once there is space again.
func TestDiskFull(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(root, "data")
	smallDisk(t, data)
	s := sandboxAt(t, root, data, config(ticking))
	s.run("up")
	before := s.status()
	running(t, before)
	fill(t, filepath.Join(data, "filler"))

	s.write("locald.toml", config(ticking+"\n[services.more]\ncommand = [\"$PROGRAM\", \"once\", \"more.notes\"]\n"))
	for _, command := range [][]string{{"up"}, {"down"}, {"stop", "app"}} {
		r := s.try(append(command, "--json")...)
		if r.code != 1 || !strings.Contains(r.stdout+r.stderr, ipc.CodeDiskFull) {
			t.Errorf("%v: %v", command, r)
		}
	}
	if r := s.try("up"); !strings.Contains(r.stderr, "no space left on device") {
		t.Errorf("up: %v", r)
	}
	s.same(before)

	// A daemon that is killed now cannot be replaced, and what was wanted is not
	// forgotten.
	keeper, err := unix.PidfdOpen(s.keeper(before.Daemon.PID), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(keeper)
	kill(t, before.Daemon.PID)
	gone(t, keeper)
	fill(t, filepath.Join(data, "more")) // what the keeper has given back
	if r := s.try("status"); r.code != 125 || !strings.Contains(r.stderr, "no space left on device") {
		t.Errorf("status without a daemon, the disk full: %v", r)
	}
	for _, filler := range []string{"filler", "more"} {
		if err := os.Remove(filepath.Join(data, filler)); err != nil {
			t.Fatal(err)
		}
	}
	after := s.status()
	again(t, before, after)
	s.exactly(after)
	s.run("up")
	running(t, s.status())
	s.line("ticker", "tick ")
}

// TestDiskFullForAWhile: what a service writes is stored again once there is
// space again, in the same run, and what is missing is said to be.
func TestDiskFullForAWhile(t *testing.T) {
	promise(t, "P11", "F59")
	const while = 600 // ticks: more than the last page of the log has room for
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(root, "data")
	smallDisk(t, data)
	s := sandboxAt(t, root, data, config(ticking))
	s.run("up")
	before := s.status()
	s.line("ticker", "tick ")
	fill(t, filepath.Join(data, "filler"))
	s.same(before)
	ticksMore(t, of(before, "ticker").Port, while)
	s.until("told that output is not stored", func(now ipc.Status) bool {
		ticker := of(now, "ticker")
		return strings.Contains(ticker.Reason, "output is not stored: ") && strings.Contains(ticker.Reason, "no space left on device") && ticker.Hint != ""
	})
	if err := os.Remove(filepath.Join(data, "filler")); err != nil {
		t.Fatal(err)
	}
	last, missing := 0, false
	s.follow("ticker", func(line ipc.LogLine) bool {
		missing = missing || line.Stream == "gap"
		var n int
		if _, err := fmt.Sscanf(line.Line, "tick %d", &n); err != nil {
			return false
		}
		if n != last+1 && !missing {
			t.Errorf("tick %d came after tick %d, and nothing was said to be missing", n, last)
		}
		last, missing = n, false
		return n > 2*while
	})
	s.until("told that output is stored again", func(now ipc.Status) bool { return of(now, "ticker").Reason == "" })
	s.same(before)
}

// ticksMore returns when the ticker has printed so often again.
func ticksMore(t *testing.T, port, count int) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), limit)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(conn, count); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the ticker: %v", err)
	}
}

// same proves that services are in the very processes that they were in.
func (s *sandbox) same(before ipc.Status) {
	s.t.Helper()
	after := s.status()
	for _, svc := range before.Services {
		if now := of(after, svc.Name); now.PID != svc.PID || now.State != "running" || now.Run != svc.Run {
			s.t.Errorf("%s was %+v and is %+v", svc.Name, svc, now)
		}
	}
	if len(after.Services) != len(before.Services) && of(after, "more").State == "running" {
		s.t.Error("the command that failed has started something")
	}
	s.exactly(after)
}

// smallDisk mounts one at dir.
func smallDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=0700")
	if errors.Is(err, unix.EPERM) {
		t.Skip("a small disk cannot be mounted: not permitted")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
}

// fill writes until there is no space left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; size /= 2 { // the last byte too
		for err = nil; err == nil; {
			_, err = io.WriteString(f, strings.Repeat("x", size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
}
