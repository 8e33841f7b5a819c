package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/locald/locald/runtime"
)

// locales are tried in this order: not every C library has the first. Both sort
// by code point, as does what Container asks for.
var locales = [...]string{"C.UTF-8", "C"}

// captured runs a command whose standard error is kept in the file $0 until it
// has ended, so that the reason of a failure can be told.
const captured = `"$@" 2>"$0"; status=$?; cat "$0" >&2; exit $status`

func (b build) initdb(ctx context.Context) error {
	var err error
	for _, locale := range locales {
		argv := []string{
			b.program("initdb"), "-D", b.path(newDir), "-U", b.Credentials.User, "--pwfile=" + b.scratch("password"),
			"-A", "scram-sha-256", "-E", "UTF8", "--locale=" + locale, "--lc-messages=C", "--no-sync",
		}
		if b.major() >= 14 {
			argv = append(argv, "--no-instructions")
		}
		// A container's server has this time zone too, and initdb need not
		// search for the machine's.
		err = b.step(ctx, "initdb", captured, append([]string{b.scratch("errors")}, argv...), "TZ=UTC")
		if err == nil || !strings.Contains(err.Error(), "locale") {
			return err
		}
		if err := os.RemoveAll(b.path(newDir)); err != nil {
			return err
		}
	}
	return err
}

// single runs statements, one a line, in a server without any connection. What
// it prints besides errors is a prompt for each line.
const single = `statements=$1; shift; "$@" <"$statements" >/dev/null 2>"$0"; status=$?; cat "$0" >&2; exit $status`

func (b build) single(ctx context.Context, data string, statements []string, settings ...string) error {
	file := b.scratch("statements.sql")
	if err := os.WriteFile(file, []byte(strings.Join(statements, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	argv := []string{b.scratch("errors"), file, b.program("postgres"), "--single", "-D", b.path(data)}
	// A statement may hold the password; it must not be in a log.
	for _, s := range append(settings[:len(settings):len(settings)], "exit_on_error=on", "log_min_error_statement=panic", "log_statement=none") {
		argv = append(argv, "-c", s)
	}
	return b.step(ctx, "postgres --single", single, append(argv, "postgres"))
}

// createDatabase makes the database and gives the user its password. initdb
// gets another one, because it shows it when it fails.
func (b build) createDatabase(ctx context.Context) error {
	statements := []string{b.alterRole()}
	if b.Credentials.Database != "postgres" { // made by initdb
		create := "CREATE DATABASE " + identifier(b.Credentials.Database)
		if b.major() >= 15 {
			create += " STRATEGY FILE_COPY" // a third faster than through the log
		}
		statements = append(statements, create)
	}
	return b.single(ctx, newDir, statements, unsynced...)
}

func (b build) changePassword(ctx context.Context) error {
	if err := b.single(ctx, dataDir, []string{b.alterRole()}); err != nil {
		return err
	}
	return b.record(dataDir)
}

func (b build) alterRole() string {
	return "ALTER ROLE " + identifier(b.Credentials.User) + " PASSWORD " + literal(b.Credentials.Password)
}

// unsynced is how data is made: it is either completed and then synced as a
// whole, or thrown away.
var unsynced = []string{"fsync=off", "full_page_writes=off", "synchronous_commit=off"}

// scripts runs SQL files in turn against a server that lives as long as the
// script and that only the socket in PGHOST leads to. The server stays in the
// script's process group. A shell cannot tell a child that has ended from one
// that has not without waiting for it, hence the file $ended.
const scripts = `errors=$0 ended=$1 data=$2 postgres=$3 psql=$4; shift 4
(
	"$postgres" -D "$data" -c listen_addresses= -c "unix_socket_directories=$PGHOST" -c "port=$PGPORT" \
		-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c log_destination=stderr -c logging_collector=off
	echo $? >"$ended"
) &
until grep -q "^ready" "$data/postmaster.pid" 2>/dev/null; do
	if [ -e "$ended" ]; then
		echo "error: the server that they run against did not start" >"$errors"
		exit 1
	fi
	sleep 0.02
done
for file; do
	"$psql" -X -q -w -v ON_ERROR_STOP=1 -f "$file" 2>"$errors"
	status=$?
	cat "$errors" >&2
	[ "$status" = 0 ] || break
done
read -r pid <"$data/postmaster.pid" && kill -INT "$pid"
wait
[ "$status" = 0 ] || exit "$status"
read -r status <"$ended"
exit "$status"
`

func (b build) runScripts(ctx context.Context) error {
	if len(b.Init) == 0 {
		return nil
	}
	psql, err := b.psql()
	if err != nil {
		return err
	}
	sockets, err := b.sockets()
	if err != nil {
		return err
	}
	args := append([]string{b.scratch("errors"), b.scratch("ended"), b.path(newDir), b.program("postgres"), psql}, b.Init...)
	err = b.step(ctx, "init scripts", scripts, args,
		"PGHOST="+sockets, "PGPORT="+strconv.Itoa(b.Port), "PGUSER="+b.Credentials.User,
		"PGDATABASE="+b.Credentials.Database, "PGPASSFILE="+b.scratch("pgpass"))
	var f *runtime.Fault
	if errors.As(err, &f) && f.Code == "exited" {
		f.Hint = "correct it, then: locald up " + b.base.Service
	}
	return err
}

// psql is the one of the install, or any: packages that hold only a server exist.
func (b build) psql() (string, error) {
	own := b.program("psql")
	if executable(own) {
		return own, nil
	}
	if other, err := exec.LookPath("psql"); err == nil {
		return other, nil
	}
	return "", &runtime.Fault{
		Code: "command_missing",
		Hint: "apt-get install postgresql-client (macOS: brew install libpq)",
		Err:  fmt.Errorf("psql, which runs the init scripts, is neither in %s nor in PATH", b.Install.Bin),
	}
}

// longestSocket is what fits into a socket address on every system: macOS has
// 104 bytes with the NUL, Linux 108.
const longestSocket = 103

// sockets is a private directory for the socket of the server that runs the
// init scripts: the scratch directory, or one in /tmp when its path is too long
// or holds what is not literal in Postgres's settings or in PGHOST.
func (b build) sockets() (string, error) {
	dir := b.path(scratchDir)
	if len(dir)+len("/.s.PGSQL.65535") <= longestSocket && !strings.ContainsAny(dir, `,"'\`) {
		return dir, nil
	}
	dir = InitSockets(b.Dir)
	// Whoever else may have made it: only a directory that this call has made,
	// with this mode, is private.
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o700)
}

// InitSockets is where the server that runs the init scripts of the data in dir
// has its socket while they run, when dir is too long a path for it.
func InitSockets(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join("/tmp", fmt.Sprintf("locald-%d-pg-%x", os.Getuid(), sum[:6]))
}

// stopGrace is how long a step has to end when it is no longer wanted. What it
// made is thrown away.
const stopGrace = time.Second

// step runs a shell script as one instance and waits for its end. The script
// leaves the standard error of what failed in the scratch file "errors".
func (b build) step(ctx context.Context, what, script string, args []string, env ...string) error {
	if err := os.RemoveAll(b.scratch("errors")); err != nil {
		return err
	}
	spec := b.base
	spec.Image = nil
	spec.Command = append([]string{"/bin/sh", "-c", script}, args...)
	spec.Dir = b.Dir
	spec.Env = environ{}.add(b.base.Env...).programs().add(env...)
	spec.StopSignal = "SIGTERM"
	spec.Unprivileged = true
	instance, err := b.rt.Start(ctx, spec)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	exit, err := instance.Wait(ctx)
	clean := context.WithoutCancel(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", what, err), instance.Stop(clean, stopGrace), instance.Remove(clean))
	}
	if err := instance.Remove(clean); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if exit.Known && exit.Code == 0 {
		return nil
	}
	return b.fault(what, exit)
}

// fault tells why a step ended badly, by what its program said.
func (b build) fault(what string, exit runtime.Exit) error {
	said, _ := os.ReadFile(b.scratch("errors")) // that there is none is an answer too
	reason := complaint(string(said), b.base.Project.Dir)
	if reason == "" {
		reason = exit.String()
	}
	f := &runtime.Fault{Code: "exited", Hint: "locald logs " + b.base.Service, Err: fmt.Errorf("%s: %s", what, reason)}
	if strings.Contains(reason, "No space left on device") {
		f.Code, f.Hint = "disk_full", "df -h "+b.Dir
	}
	return f
}

// complaint is the line of a Postgres program's output that says what went
// wrong, without time stamps and the name of the program, and with files below
// dir relative to it: "db/init.sql:3: ERROR: relation \"x\" does not exist".
// It is the first line when none has a level, "" when there is none at all.
func complaint(output, dir string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(output), "\n")
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		for _, level := range []string{"ERROR:", "FATAL:", "PANIC:", "error:"} {
			before, message, ok := strings.Cut(line, level)
			if !ok {
				continue
			}
			place := ""
			if at, ok := strings.CutPrefix(before, "psql:"); ok && strings.TrimSpace(at) != "" {
				place = strings.TrimPrefix(at, dir+"/")
			}
			return place + level + " " + strings.TrimSpace(message)
		}
	}
	return strings.TrimSpace(first)
}

func (b build) major() int {
	v, _ := strconv.Atoi(b.Install.Version) // Installs lets only numbers through
	return v
}

func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal is a string constant that means the same whatever
// standard_conforming_strings is.
func literal(value string) string {
	return `E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value) + `'`
}
