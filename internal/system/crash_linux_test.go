package system

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/ipc"
)

// rounds is how often the daemon is killed. Those with containers take an
// engine's time, so only every fifth has them.
const (
	rounds   = 50
	ofEngine = 5
)

const processes = `[project]
name = "crash"

[services.db]
type = "postgres"
runtime = "process"
backoff = "50ms"

[services.app]
backoff = "50ms"
command = ["$PROGRAM", "once", "app.notes"]
depends_on = ["db"]

[services.worker]
type = "worker"
backoff = "50ms"
command = "exec $PROGRAM once worker.notes"
`

const containers = `
[services.pg]
image = "postgres:15"
port = 5432
tmpfs = ["/var/lib/postgresql/data"]
env = { POSTGRES_PASSWORD = "secret", POSTGRES_INITDB_ARGS = "--no-sync" }
command = ["postgres", "-c", "fsync=off"]

[services.shell]
image = "locald-test/shell:1"
entrypoint = ["/program"]
command = ["once", "/project/shell.notes"]
volumes = ["$PROGRAM:/program:ro", ".:/project"]
`

func config(text string) string { return strings.ReplaceAll(text, "$PROGRAM", service()) }

// psql asks the database of a service, as something outside of locald would.
func (s *sandbox) psql(db ipc.Service, statement string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "psql", "-XqAtv", "ON_ERROR_STOP=1", "-c", statement, db.URL).CombinedOutput()
	if err != nil {
		s.t.Fatalf("psql %s: %v: %s", statement, err, out)
	}
	return strings.TrimSpace(string(out))
}

// running proves that every service runs and is ready.
func running(t *testing.T, status ipc.Status) {
	t.Helper()
	for _, svc := range status.Services {
		if svc.State != "running" || svc.Health == "starting" || svc.Health == "unhealthy" {
			t.Fatalf("%s is %s, %s: %s", svc.Name, svc.State, svc.Health, svc.Reason)
		}
	}
}

// again proves that every service that ran is in the run after that one.
func again(t *testing.T, before, after ipc.Status) {
	t.Helper()
	for _, svc := range after.Services {
		if was := of(before, svc.Name).Run; was != 0 && (svc.Run != was+1 || svc.State != "running") {
			t.Errorf("%s: run %d, %s, came after run %d", svc.Name, svc.Run, svc.State, was)
		}
	}
}

// TestCrashOfDaemon kills the daemon over and over. What ran is gone, what is
// wanted runs exactly once, and the data is what it was.
func TestCrashOfDaemon(t *testing.T) {
	needPostgres(t)
	needEngine(t)
	s := newSandbox(t, config(processes+containers))
	s.run("up")
	status := s.status()
	running(t, status)
	s.psql(of(status, "db"), "create table rounds (n int)")
	began, expected := time.Now(), map[string]int{"app.notes": 1, "worker.notes": 1, "shell.notes": 1}
	var plain, whole []time.Duration
	for n := 1; n <= rounds; n++ {
		withEngine := n%ofEngine == 1
		s.psql(of(status, "db"), fmt.Sprintf("insert into rounds values (%d)", n))
		kill(t, status.Daemon.PID)
		at, before := time.Now(), status
		status = s.status()
		if withEngine {
			whole = append(whole, time.Since(at))
		} else {
			plain = append(plain, time.Since(at))
		}
		expected["app.notes"]++
		expected["worker.notes"]++
		if withEngine {
			expected["shell.notes"]++
		}
		if before.Daemon.PID == status.Daemon.PID {
			t.Fatal("it is still the same daemon")
		}
		if got := s.psql(of(status, "db"), "select count(*), max(n) from rounds"); got != fmt.Sprintf("%d|%d", n, n) {
			t.Fatalf("round %d: the table has %s", n, got)
		}
		s.proves(n, before, status, expected)
		if t.Failed() {
			return
		}
		switch n % ofEngine { // the containers are there for the next round, or not
		case 1:
			s.run("stop", "pg", "shell")
			status = s.status()
		case 0:
			if n < rounds {
				s.run("start", "pg", "shell")
				expected["shell.notes"]++
				status = s.status()
			}
		}
	}
	t.Logf("%d crashes in %v; status after a crash: %v with processes, %v with containers too",
		rounds, time.Since(began).Round(time.Second), spread(plain), spread(whole))
}

// proves checks everything that holds after a crash.
func (s *sandbox) proves(round int, before, after ipc.Status, expected map[string]int) {
	s.t.Helper()
	for _, svc := range after.Services {
		if svc.Desired == "up" && (svc.State != "running" || svc.Health == "starting" || svc.Health == "unhealthy") {
			s.t.Errorf("round %d: %s is %s, %s: %s", round, svc.Name, svc.State, svc.Health, svc.Reason)
		}
		if was := of(before, svc.Name); svc.Desired == "up" && svc.Run != was.Run+1 {
			s.t.Errorf("round %d: %s: run %d came after run %d", round, svc.Name, svc.Run, was.Run)
		}
	}
	for notes, want := range expected {
		if got := s.starts(notes); got != want {
			s.t.Errorf("round %d: %s has %d starts, want %d:\n%s", round, notes, got, want, tail(strings.Join(s.notes(notes), "\n"), 8))
		}
	}
	s.exactly(after)
}

// TestCrashOfKeeper kills the process that holds the services' processes. The
// daemon starts another, and every service of it once more.
func TestCrashOfKeeper(t *testing.T) {
	needPostgres(t)
	s := newSandbox(t, config(processes))
	s.run("up")
	status := s.status()
	s.psql(of(status, "db"), "create table kept as select 42 as n")
	for n := 2; n <= 6; n++ {
		before := status
		kill(t, s.keeper(status.Daemon.PID))
		s.until("restarted", func(now ipc.Status) bool {
			for _, svc := range now.Services {
				if svc.Run <= of(before, svc.Name).Run || svc.State != "running" || svc.ReadyAt == "" {
					return false
				}
			}
			return true
		})
		status = s.status()
		running(t, status)
		again(t, before, status)
		if status.Daemon.PID != before.Daemon.PID {
			t.Error("the daemon did not outlive its keeper")
		}
		if got := s.psql(of(status, "db"), "select n from kept"); got != "42" {
			t.Errorf("the table has %s", got)
		}
		for _, notes := range []string{"app.notes", "worker.notes"} {
			if got := s.starts(notes); got != n {
				t.Errorf("%s has %d starts, want %d", notes, got, n)
			}
		}
		s.exactly(status)
		if t.Failed() {
			return
		}
	}
}

// TestCrashOfBoth kills daemon and keeper: nobody is left who stops anything,
// and the next daemon finds all of it.
func TestCrashOfBoth(t *testing.T) {
	needPostgres(t)
	needEngine(t)
	s := newSandbox(t, config(processes+containers))
	s.run("up")
	status := s.status()
	s.psql(of(status, "db"), "create table kept as select 42 as n")
	for n := 2; n <= 5; n++ {
		keeper := s.keeper(status.Daemon.PID)
		if n%2 == 0 { // either may be first
			kill(t, status.Daemon.PID)
			killIfThere(t, keeper)
		} else {
			kill(t, keeper)
			kill(t, status.Daemon.PID)
		}
		at := time.Now()
		status = s.status()
		t.Logf("status after %v", time.Since(at).Round(time.Millisecond))
		running(t, status)
		if got := s.psql(of(status, "db"), "select n from kept"); got != "42" {
			t.Errorf("the table has %s", got)
		}
		for _, notes := range []string{"app.notes", "worker.notes", "shell.notes"} {
			s.starts(notes)
		}
		s.exactly(status)
		if t.Failed() {
			return
		}
	}
}

// TestCrashDuringUp kills the daemon at any instant of an up, and again while
// it restores.
func TestCrashDuringUp(t *testing.T) {
	needPostgres(t)
	needEngine(t)
	s := newSandbox(t, config(processes+containers))
	seed := uint64(time.Now().UnixNano())
	chance := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	for round := range 8 {
		s.run("server", "start", "--daemonize")
		var killed []time.Duration
		for _, args := range [][]string{{"up"}, {"status"}} {
			delay := time.Duration(chance.Int64N(int64(1500 * time.Millisecond)))
			killed = append(killed, delay)
			s.interrupted(delay, args...)
		}
		s.run("up")
		status := s.status()
		running(t, status)
		for _, notes := range []string{"app.notes", "worker.notes", "shell.notes"} {
			s.starts(notes)
		}
		s.exactly(status)
		if t.Failed() {
			t.Fatalf("round %d, killed after %v", round, killed)
		}
		s.run("down")
		s.containersAre(nil)
	}
}

// interrupted runs a command and kills the daemon after a while.
func (s *sandbox) interrupted(after time.Duration, args ...string) {
	s.t.Helper()
	ended := make(chan result, 1)
	go func() { ended <- s.try(args...) }()
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case r := <-ended: // it was quicker
		ended <- r
	}
	client := &ipc.Client{Socket: s.places().Socket}
	if pid, err := client.PeerPID(s.t.Context()); err == nil {
		killIfThere(s.t, pid)
	}
	<-ended // with whatever exit status: its daemon is gone
}
