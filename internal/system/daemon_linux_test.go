package system

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

const oneService = `[project]
name = "one"

[services.app]
command = ["$PROGRAM", "once", "app.notes"]
`

// TestManyClients: of a hundred commands that find no daemon, one starts it,
// and all of them are served by it.
func TestManyClients(t *testing.T) {
	promise(t, "P15")
	const clients = 100
	s := newSandbox(t, config(oneService))
	results := make([]result, clients)
	var running sync.WaitGroup
	for i := range results {
		running.Go(func() { results[i] = s.try("up") })
	}
	running.Wait()
	for _, r := range results {
		if r.code != 0 {
			t.Errorf("%v", r)
		}
	}
	if starts := s.daemonStarts(); starts != 1 {
		t.Errorf("%d daemons were started", starts)
	}
	if got := s.starts("app.notes"); got != 1 {
		t.Errorf("the service was started %d times", got)
	}
	s.exactly(s.status())
	tried(t, clients, 0)
}

// daemonStarts counts the daemons that have served, by their log.
func (s *sandbox) daemonStarts() (starts int) {
	s.t.Helper()
	log, err := os.ReadFile(s.places().Log)
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		var entry struct{ Msg string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "serving" {
			starts++
		}
	}
	return starts
}

// TestStaleSocket: a socket behind which nobody listens is replaced.
func TestStaleSocket(t *testing.T) {
	s := newSandbox(t, config(oneService))
	before := s.listener()
	before.SetUnlinkOnClose(false)
	before.Close()
	if info, err := os.Lstat(s.places().Socket); err != nil || info.Mode().Type() != fs.ModeSocket {
		t.Fatalf("no stale socket: %v %v", info, err)
	}
	s.run("up")
	running(t, s.status())
}

// listener listens where the daemon would.
func (s *sandbox) listener() *net.UnixListener {
	s.t.Helper()
	path := s.places().Socket
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	for dir := filepath.Dir(path); dir != s.root; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		s.t.Fatal(err)
	}
	return l.(*net.UnixListener)
}

// TestSocketOfSomebodyElse: it is refused with the reason, and left as it is.
func TestSocketOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a socket to somebody else")
	}
	s := newSandbox(t, config(oneService))
	l := s.listener()
	defer l.Close()
	path := s.places().Socket
	const other = 4243
	if err := os.Chown(path, other, other); err != nil {
		t.Fatal(err)
	}
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"up"}, {"server", "start", "--daemonize"}, {"server", "start"}} {
		r := s.try(command...)
		if r.code != 125 || !strings.Contains(r.stderr, path) || !strings.Contains(r.stderr, "belongs to") {
			t.Errorf("%v: %v", command, r)
		}
	}
	after, err := os.Lstat(path)
	if err != nil || !os.SameFile(before, after) || after.Sys().(*syscall.Stat_t).Uid != other {
		t.Errorf("the socket was touched: %v %v", after, err)
	}
	if len(s.processes()) > 0 {
		t.Errorf("%v", s.processes())
	}
	if err := os.Remove(path); err != nil { // so that the sandbox can be ended as usual
		t.Fatal(err)
	}
}

// TestTerminated: a daemon that is asked to end stops what depends before what
// it depends on, and the next one starts all of it again.
func TestTerminated(t *testing.T) {
	s := newSandbox(t, config(`[project]
name = "order"

[services.a]
command = ["$PROGRAM", "once", "a.notes"]

[services.b]
command = ["$PROGRAM", "once", "b.notes"]
depends_on = ["a"]

[services.c]
command = ["$PROGRAM", "once", "c.notes"]
depends_on = ["b"]

[services.unwanted]
command = ["$PROGRAM", "once", "unwanted.notes"]
`))
	s.run("up")
	s.run("stop", "unwanted")
	for n, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		before := s.status()
		signal(t, before.Daemon.PID, sig)
		if left := s.processes(); len(left) > 0 {
			t.Fatalf("%v left %v", sig, left)
		}
		a, b, c := s.stopped("a"), s.stopped("b"), s.stopped("c")
		if !slices.IsSorted([]int{c, b, a}) || c == 0 {
			t.Errorf("stopped at a %d, b %d, c %d", a, b, c)
		}
		after := s.status()
		for _, name := range []string{"a", "b", "c"} {
			if svc := of(after, name); svc.State != "running" || svc.Run != of(before, name).Run+1 {
				t.Errorf("%v", svc)
			}
			if got := s.starts(name + ".notes"); got != n+2 {
				t.Errorf("%s has %d starts", name, got)
			}
		}
		if got := s.starts("unwanted.notes"); got != 1 {
			t.Errorf("what the user had stopped was started again")
		}
		s.exactly(after)
	}
}

// stopped is when a service last noted that it was asked to end.
func (s *sandbox) stopped(name string) int {
	s.t.Helper()
	notes := s.notes(name + ".notes")
	words := strings.Fields(notes[len(notes)-1])
	if words[0] != "stopped" {
		s.t.Errorf("%s was not asked to end: %v", name, notes)
		return 0
	}
	at, err := strconv.Atoi(words[2])
	if err != nil {
		s.t.Fatal(err)
	}
	return at
}

// TestOtherVersion: a client of another protocol gets a sentence, and the
// daemon goes on.
func TestOtherVersion(t *testing.T) {
	s := newSandbox(t, config(oneService))
	s.run("up")
	conn, err := ipc.Dial(t.Context(), s.places().Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(`{"v":2,"call":"project.up","args":{"later":true}}` + "\n")); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Error ipc.Error }
	if err := json.Unmarshal(line, &answer); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if answer.Error.Code != ipc.CodeVersionMismatch || !strings.Contains(answer.Error.Message, "2") || answer.Error.Hint == "" {
		t.Errorf("%s", line)
	}
	running(t, s.status())

	// The other way round: this client, and a daemon of a later protocol.
	other := newSandbox(t, config(oneService))
	l := other.listener()
	var served sync.WaitGroup
	served.Go(func() {
		later := &ipc.Error{Code: ipc.CodeVersionMismatch, Message: "the daemon speaks protocol 2, and the client 1", Hint: "locald server restart"}
		answer, _ := json.Marshal(map[string]any{"error": later}) // of plain strings
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(conn).ReadBytes('\n')
			_, _ = conn.Write(append(answer, '\n'))
			conn.Close()
		}
	})
	if r := other.try("status"); r.code != 125 && r.code != 1 || !strings.Contains(r.stderr, "protocol 2") || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("%v", r)
	}
	l.Close()
	served.Wait()
}

// TestConcurrentCrash: clients that meet a daemon which is killed meanwhile end
// with one that runs, once.
func TestConcurrentCrash(t *testing.T) {
	const clients = 20
	s := newSandbox(t, config(oneService))
	s.run("up")
	status := s.status()
	kill(t, status.Daemon.PID)
	results := make([]result, clients)
	var asking sync.WaitGroup
	for i := range results {
		asking.Go(func() { results[i] = s.try("status") })
	}
	asking.Wait()
	for _, r := range results {
		if r.code != 0 {
			t.Errorf("%v", r)
		}
	}
	if starts := s.daemonStarts(); starts != 2 {
		t.Errorf("%d daemons were started, want the one that was killed and the next", starts)
	}
	if got := s.starts("app.notes"); got != 2 {
		t.Errorf("the service was started %d times", got)
	}
	s.exactly(s.status())
}

// TestAskedAtOnce: a client that comes the moment the socket is there is
// answered of what is on record.
func TestAskedAtOnce(t *testing.T) {
	promise(t, "P5")
	s := newSandbox(t, config(oneService))
	s.run("up")
	status := s.status()
	store := state.Store{Dir: s.places().Dir}
	owner, err := store.Owner()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 { // so that reading takes a while
		dir := filepath.Join(s.root, "others", strconv.Itoa(i))
		other := state.Project{ID: state.NewID("other", dir, owner), Name: "other", Dir: dir, UsedAt: time.Now()}
		if err := store.SaveProject(other); err != nil {
			t.Fatal(err)
		}
	}
	kill(t, status.Daemon.PID)
	if err := os.Remove(s.places().Socket); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	server := s.command(ctx, "server", "start")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	client := &ipc.Client{Socket: s.places().Socket}
	ask := ipc.StatusArgs{Project: ipc.Project{Dir: s.dir}}
	var stream *ipc.Reader
	for err = ipc.ErrNoDaemon; err != nil; {
		if stream, err = client.Stream(ctx, ipc.CallWatch, ask); err != nil && !errors.Is(err, ipc.ErrNoDaemon) {
			t.Fatal(err)
		}
	}
	defer stream.Close()
	for {
		var now ipc.Status
		if err := stream.Next(&now); err != nil {
			t.Fatal(err)
		}
		if svc := of(now, "app"); svc.State == "running" && svc.Run == 2 {
			break
		}
	}
	s.starts("app.notes")
	s.run("server", "stop")
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
}
