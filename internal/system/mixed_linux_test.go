package system

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/locald/locald/ipc"
)

// ask prints as whom a dependent is let into which database.
const ask = `echo "asked $(psql -XqAt -F ' ' -c 'select current_user, current_database()' "$DATABASE_URL" 2>&1)"`

// TestMixed is one project of a process, a Postgres as a process and one in a
// container: every address works where it is read.
func TestMixed(t *testing.T) {
	needPostgres(t)
	needEngine(t)
	s := newSandbox(t, config(`[project]
name = "mixed"

[services.db]
type = "postgres"
runtime = "process"

[services.pg]
image = "postgres:15"
port = 5432
tmpfs = ["/var/lib/postgresql/data"]
env = { POSTGRES_PASSWORD = "secret", POSTGRES_USER = "ana", POSTGRES_DB = "shop", POSTGRES_INITDB_ARGS = "--no-sync" }
command = ["postgres", "-c", "fsync=off"]

[services.app]
command = ["$PROGRAM", "once", "app.notes"]
depends_on = ["db", "pg"]

[services.other]
type = "worker"
command = ["$PROGRAM", "once", "other.notes"]
depends_on = ["pg"]

# A container that asks the Postgres which is a process on the host.
[services.inside]
image = "postgres:15"
entrypoint = ["sh", "-c"]
command = ['''`+ask+`; exec sleep infinity''']
depends_on = ["db"]
health = "none"

# And one that asks the other container.
[services.beside]
image = "postgres:15"
entrypoint = ["sh", "-c"]
command = ['''`+ask+`; exec sleep infinity''']
depends_on = ["pg"]
health = "none"
`))
	s.run("up")
	status := s.status()
	running(t, status)
	s.exactly(status)

	for name, want := range map[string]string{"app": "mixed|mixed|postgresql://mixed:", "other": "ana|shop|postgresql://ana:"} {
		asked := s.run("run", name, "--", "sh", "-c", `psql -XqAt -c 'select current_user, current_database()' "$DATABASE_URL" && echo "$DATABASE_URL"`)
		if got := strings.ReplaceAll(asked.stdout, "\n", "|"); !strings.HasPrefix(got, want) {
			t.Errorf("run %s: %q, want %q", name, got, want)
		}
	}
	// psql by itself finds the database in PG*.
	if got := s.run("run", "app", "--", "psql", "-XqAt", "-c", "select current_database()").stdout; got != "mixed\n" {
		t.Errorf("psql without an address reached %q", got)
	}
	// The process reaches the container's too, under its own name.
	if got := s.run("run", "app", "--", "sh", "-c", `psql -XqAt -c 'select current_database()' "$PG_URL"`).stdout; got != "shop\n" {
		t.Errorf("the container's database from a process: %q", got)
	}
	for name, want := range map[string]string{"inside": "mixed mixed", "beside": "ana shop"} {
		if got := s.line(name, "asked "); got != want {
			t.Errorf("%s asked and heard %q, want %q", name, got, want)
		}
	}
	if got := s.run("exec", "inside", "--", "sh", "-c", "echo $PGHOST").stdout; got != "host.docker.internal\n" {
		t.Errorf("the container reaches the host as %q", got)
	}
}

// line is the first line of a service's log that begins so, without the
// beginning; it is waited for.
func (s *sandbox) line(name, prefix string) (rest string) {
	s.t.Helper()
	s.follow(name, func(line ipc.LogLine) (found bool) {
		rest, found = strings.CutPrefix(line.Line, prefix)
		return found
	})
	return rest
}

// follow reads a service's log from its beginning, and on, until is says that
// this was the line.
func (s *sandbox) follow(name string, is func(ipc.LogLine) bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	cmd := s.command(ctx, "logs", "-f", "--tail", "all", "--json", name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }() // ended by us
	var last ipc.LogLine
	for lines := json.NewDecoder(out); ; {
		if err := lines.Decode(&last); err != nil {
			s.t.Fatalf("the log of %s: %v; its last line is %+v", name, err, last)
		}
		if is(last) {
			return
		}
	}
}
