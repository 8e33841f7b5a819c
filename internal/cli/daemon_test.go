package cli

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/locald/locald/ipc"
)

// started prepares for a real daemon, the test binary, and returns the file in
// which each start is noted. The daemon is stopped when the test ends.
func (b *bench) started() string {
	b.t.Helper()
	starts := filepath.Join(filepath.Dir(b.dir), "starts")
	b.environ = append(b.environ, "CLI_TEST_LOCALD=1", "CLI_TEST_STARTS="+starts)
	b.t.Cleanup(func() {
		if got := b.run("server", "stop"); got.status != 0 {
			b.t.Errorf("server stop: %+v", got)
		}
	})
	return starts
}

func TestAHundredClientsAtOnceStartOneDaemon(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	starts := b.started()
	// What a killed daemon leaves behind.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if got := b.run("server", "start", "--daemonize"); got.status != 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
	all.Wait()
	text, err := os.ReadFile(starts)
	if err != nil || strings.Count(string(text), "\n") != 1 {
		t.Errorf("started: %q, %v", text, err)
	}
	if got := b.run("server", "status", "--json"); !strings.Contains(got.stdout, `"pid":`+strings.TrimSpace(string(text))) {
		t.Errorf("status: %+v, want process %s", got, text)
	}
	if got := b.run("server", "start", "--daemonize"); got.status != 0 || !strings.HasPrefix(got.stdout, "already running") {
		t.Errorf("once more: %+v", got)
	}
	if got := b.run("server", "restart"); got.status != 0 || !strings.HasPrefix(got.stdout, "running") {
		t.Errorf("restart: %+v", got)
	}
}

func TestADaemonThatEndsAsItIsCalledIsStartedAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.started()
	ending, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ending.SetUnlinkOnClose(false) // it is killed
	go func() {
		conn, err := ending.Accept()
		ending.Close()
		if err == nil {
			conn.Close()
		}
	}()
	if got := b.run("server", "start", "--daemonize"); got.status != 0 || !strings.HasPrefix(got.stdout, "running") {
		t.Errorf("got %+v", got)
	}
}

func TestAForegroundDaemonBesideAnotherSaysSo(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.started()
	if got := b.run("server", "start", "--daemonize"); got.status != 0 {
		t.Fatalf("got %+v", got)
	}
	cmd := exec.Command(os.Args[0], "server", "start")
	cmd.Env = b.environ
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "already running\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestServerStopWaitsForTheProcess(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	starts := b.started()
	if got := b.run("server", "start", "--daemonize"); got.status != 0 {
		t.Fatalf("got %+v", got)
	}
	text, err := os.ReadFile(starts)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.run("server", "stop"); got.status != 0 {
		t.Fatalf("got %+v", got)
	}
	// Our child that nobody has waited for yet would still be there as a
	// zombie; anything else would be alive.
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
	if err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("still there: %s", stat)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "no such process") {
		t.Skip(err)
	}
	if got := b.run("server", "stop"); got.status != 0 || got.stdout != "not running\n" {
		t.Errorf("again: %+v", got)
	}
}

func TestADaemonThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string][]string{
		"error": {"locald: the state is of a later locald\n", "hint: update locald\n"},
		"crash": {"the daemon ended before it was ready; it wrote:", `panic: something is \x1b]0;owned\x07 wrong`, "hint: locald server start"},
	} {
		b := newBench(t, twoServices)
		b.environ = append(b.environ, "CLI_TEST_LOCALD=1", "CLI_TEST_FAULT="+fault)
		got := b.run("up")
		if got.status != 125 {
			t.Errorf("%s: exit %d", fault, got.status)
		}
		for _, w := range want {
			if !strings.Contains(got.stderr, w) {
				t.Errorf("%s: %q is missing in\n%s", fault, w, got.stderr)
			}
		}
	}
}

func TestAForeignLogFileIsNotWritten(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(path, victim string) error{
		"is a symbolic link": func(path, victim string) error { return os.Symlink(victim, path) },
		"has a second name":  func(path, victim string) error { return os.Link(victim, path) },
		"is a directory":     func(path, _ string) error { return os.Mkdir(path, 0o700) },
	} {
		b := newBench(t, twoServices)
		b.environ = append(b.environ, "CLI_TEST_LOCALD=1")
		places, err := (&app{environ: b.environ}).places()
		if err != nil {
			t.Fatal(err)
		}
		victim := filepath.Join(b.dir, "victim")
		if err := errors.Join(places.Make(), os.WriteFile(victim, []byte("mine"), 0o600), plant(places.Log, victim)); err != nil {
			t.Fatal(err)
		}
		got := b.run("up")
		if got.status != 125 || !strings.Contains(got.stderr, name) {
			t.Errorf("%s: got %+v", name, got)
		}
		if text, _ := os.ReadFile(victim); string(text) != "mine" {
			t.Errorf("%s: the file now says %q", name, text)
		}
	}
}

func TestAStateDirectoryThatCannotBeMadeIsNamed(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.write("file", "")
	b.environ = append(b.environ, "XDG_DATA_HOME="+filepath.Join(b.dir, "file"))
	if got := b.run("up"); got.status != 125 || !strings.Contains(got.stderr, "state directory") || !strings.Contains(got.stderr, "not a directory") {
		t.Errorf("got %+v", got)
	}
}

// TestAnInterruptWhileNothingIsSaidEndsTheCommand has a daemon in the way that
// never answers.
func TestAnInterruptWhileNothingIsSaidEndsTheCommand(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	arrived := make(chan struct{})
	b.serve(ipc.Table{ipc.CallStatus: ipc.Answer(func(ctx context.Context, _ ipc.StatusArgs) (ipc.Status, error) {
		close(arrived)
		<-ctx.Done()
		return ipc.Status{}, ctx.Err()
	})})
	ended := make(chan result)
	go func() { ended <- b.run("status") }()
	<-arrived
	b.signals <- os.Interrupt
	if got := <-ended; got.status != 130 || got.stderr != "" {
		t.Errorf("got %+v", got)
	}
}
