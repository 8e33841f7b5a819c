package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locald/locald/runtime"
)

// stand is a service's directory, a project with scripts, and a runtime.
type stand struct {
	Native
	rt   *plain
	base runtime.Spec
}

func newStand(t *testing.T, scripts ...string) *stand {
	t.Helper()
	installs := Installs(os.Getenv)
	if len(installs) == 0 {
		const why = "no native Postgres on this machine"
		if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), "postgres") {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	state, project := t.TempDir(), t.TempDir()
	s := &stand{
		Native: Native{
			Install:     installs[0],
			Credentials: Credentials{User: "app", Password: `s3:cr'et\`, Database: "shop"},
			Dir:         filepath.Join(state, "db"),
			Port:        freePort(t),
		},
		rt: newPlain(t),
		base: runtime.Spec{
			Project: runtime.Project{ID: "shop-1a2b3c4d", Name: "shop", Dir: project},
			Service: "db", Run: 1, Env: append(os.Environ(), "PGPORT=1", "PGDATA=/nowhere", "LC_ALL=de_DE.UTF-8"),
		},
	}
	for i, script := range scripts {
		s.Init = append(s.Init, filepath.Join(project, fmt.Sprintf("init%d.sql", i+1)))
		write(t, s.Init[i], script)
	}
	return s
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *stand) create(t *testing.T) {
	t.Helper()
	begin := time.Now()
	if err := s.Create(t.Context(), s.rt, s.base, func(runtime.Progress) {}); err != nil {
		t.Fatal(err)
	}
	t.Logf("Create: %v", time.Since(begin).Round(time.Millisecond))
}

func (s *stand) createFails(t *testing.T, code string, words ...string) {
	t.Helper()
	err := s.Create(t.Context(), s.rt, s.base, func(runtime.Progress) {})
	wantFault(t, err, code, words...)
}

// wantFault checks the message and the hint together: both are shown.
func wantFault(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	var f *runtime.Fault
	if !errors.As(err, &f) {
		t.Fatalf("got error %v, want a fault with code %s", err, code)
	}
	if f.Code != code || f.Hint == "" {
		t.Errorf("got code %q, hint %q, want code %q and a hint", f.Code, f.Hint, code)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+"\n"+f.Hint, w) {
			t.Errorf("got %q, hint %q, want it to say %q", err, f.Hint, w)
		}
	}
}

// start returns the running server, stopped at the end of the test.
func (s *stand) start(t *testing.T) *child {
	t.Helper()
	begin := time.Now()
	already := strings.Count(s.rt.out.String(), "ready to accept connections")
	i, err := s.rt.Start(t.Context(), s.Spec(s.base))
	if err != nil {
		t.Fatal(err)
	}
	c := i.(*child)
	t.Cleanup(func() {
		if err := c.Stop(context.Background(), 10*time.Second); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		_, _ = c.Wait(ctx)
		cancel()
	}()
	if err := s.rt.out.await(ctx, "ready to accept connections", already+1); err != nil {
		t.Fatalf("the server does not start:\n%s", s.rt.out)
	}
	t.Logf("start to ready: %v", time.Since(begin).Round(time.Millisecond))
	return c
}

func (s *stand) stop(t *testing.T, c *child) {
	t.Helper()
	if err := c.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if c.exit.Code != 0 {
		t.Errorf("the server %v, want exit code 0", c.exit)
	}
	_ = c.Remove(t.Context())
}

func (s *stand) connect(t *testing.T, c Credentials) (*pgx.Conn, error) {
	t.Helper()
	u := url.URL{
		Scheme: "postgresql", User: url.UserPassword(c.User, c.Password),
		Host: fmt.Sprintf("127.0.0.1:%d", s.Port), Path: "/" + c.Database, RawQuery: "sslmode=disable",
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, u.String())
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

func (s *stand) query(t *testing.T, sql string) string {
	t.Helper()
	conn, err := s.connect(t, s.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var answer string
	if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

func (s *stand) exec(t *testing.T, sql string) {
	t.Helper()
	conn, err := s.connect(t, s.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// nothing checks that no data and nothing of an attempt is left.
func (s *stand) nothing(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left", filepath.Join(s.Dir, e.Name()))
	}
}

func TestServerAnswersWithPasswordAndKeepsData(t *testing.T) {
	s := newStand(t)
	s.create(t)
	c := s.start(t)
	if got := s.query(t, "SELECT current_user || '@' || current_database()"); got != "app@shop" {
		t.Errorf("got %s, want app@shop", got)
	}
	for name, want := range map[string]string{
		"fsync": "on", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "lc_messages": "C",
		"server_encoding": "UTF8", "password_encryption": "scram-sha-256",
	} {
		if got := s.query(t, "SHOW "+name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	wrong := s.Credentials
	wrong.Password = "other"
	_, err := s.connect(t, wrong)
	if err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("a wrong password got %v, want that its authentication failed", err)
	}
	s.exec(t, "CREATE TABLE kept AS SELECT 'still here' AS words")
	s.stop(t, c)

	s.create(t)
	s.start(t)
	if got := s.query(t, "SELECT words FROM kept"); got != "still here" {
		t.Errorf("after the second start got %q, want the row of the first", got)
	}
}

func TestPasswordIsNowhereToBeSeen(t *testing.T) {
	s := newStand(t, "SELECT 1")
	s.create(t)
	s.start(t)
	const secret = "s3:cr"
	for _, shown := range [][][]string{s.rt.started, s.rt.environ} {
		for _, words := range shown {
			if strings.Contains(strings.Join(words, " "), secret) {
				t.Errorf("the password is in %q", words)
			}
		}
	}
	if strings.Contains(s.rt.out.String(), secret) {
		t.Error("the password is in the log")
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "data" {
		t.Errorf("left behind: %v, want the data alone", entries)
	}
}

func TestChangedPasswordIsGivenToTheData(t *testing.T) {
	s := newStand(t)
	s.create(t)
	old := s.Credentials
	s.Credentials.Password = `o'neil\ password`
	s.create(t)
	if strings.Contains(s.rt.out.String(), "neil") {
		t.Error("the password is in the log")
	}
	c := s.start(t)
	s.query(t, "SELECT 'yes'")
	if _, err := s.connect(t, old); err == nil {
		t.Error("the old password still works")
	}
	s.stop(t, c)
	before := len(s.rt.started)
	s.create(t)
	if len(s.rt.started) != before {
		t.Error("the password was changed again, although it is the same")
	}
	s.Credentials.Database = "store"
	s.createFails(t, "config_invalid", s.Dir, `"shop"`, `"store"`, "locald down -v db")
}

func TestInitScriptsRunOnceInOrder(t *testing.T) {
	s := newStand(t,
		"CREATE TABLE steps (n serial, words text);\nINSERT INTO steps (words) VALUES ('first');\n\\echo one",
		"INSERT INTO steps (words) VALUES ('second');\n\\ir more/included.sql\n",
		"COPY steps (words) FROM stdin;\nfourth\n\\.\n")
	more := filepath.Join(s.base.Project.Dir, "more")
	if err := os.Mkdir(more, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(more, "included.sql"), "INSERT INTO steps (words) VALUES ('third');")
	s.create(t)
	s.create(t)
	s.start(t)
	got := s.query(t, "SELECT string_agg(words, ' ' ORDER BY n) FROM steps")
	if want := "first second third fourth"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFailingInitScriptNamesItsLineAndLeavesNothing(t *testing.T) {
	s := newStand(t, "CREATE TABLE a (n int);\n", "INSERT INTO a VALUES (1);\n\nINSERT INTO b VALUES (1);\nINSERT INTO a VALUES (2);\n")
	s.createFails(t, "exited", `init2.sql:3: ERROR: relation "b" does not exist`, "locald up db")
	s.nothing(t)

	write(t, s.Init[1], "INSERT INTO a VALUES (1);\n\\nonsense\n")
	s.createFails(t, "exited", `init2.sql:2: error: invalid command \nonsense`)
	s.nothing(t)

	write(t, s.Init[1], "INSERT INTO a VALUES (7);\n")
	s.create(t)
	s.start(t)
	if got := s.query(t, "SELECT string_agg(n::text, ' ') FROM a"); got != "7" {
		t.Errorf("got rows %q after the script was corrected, want 7", got)
	}
}

func TestUnusableInitScriptsAreToldBeforeAnythingIsMade(t *testing.T) {
	s := newStand(t, "")
	for _, c := range []struct{ file, words string }{
		{filepath.Join(s.base.Project.Dir, "none.sql"), "none.sql: no such file"},
		{filepath.Join(s.base.Project.Dir, "init.sh"), "init.sh is not a .sql file"},
	} {
		s.Init = []string{c.file}
		s.createFails(t, "config_invalid", c.words)
		s.nothing(t)
	}
	if len(s.rt.started) != 0 {
		t.Errorf("started %q", s.rt.started)
	}
}

// The contents of a state directory after locald and the steps were killed.
func TestInterruptedCreateIsRedone(t *testing.T) {
	s := newStand(t)
	for _, dir := range []string{"data.new/base", "create"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(s.Dir, "data.new/PG_VERSION"), s.Install.Version)
	write(t, filepath.Join(s.Dir, "create/password"), "left")
	s.create(t)
	s.start(t)
	s.query(t, "SELECT 'yes'")
}

func TestCancelledCreateLeavesNothing(t *testing.T) {
	s := newStand(t, "\\echo sleeping\nSELECT pg_sleep(600);")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_ = s.rt.out.await(ctx, "sleeping", 1)
		cancel()
	}()
	err := s.Create(ctx, s.rt, s.base, func(runtime.Progress) {})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	s.nothing(t)
	s.Init = nil
	s.create(t)
}

func TestDataOfAnotherVersionIsNotTouched(t *testing.T) {
	s := newStand(t)
	data := filepath.Join(s.Dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(data, "PG_VERSION"), "11\n")
	if got, err := Major(s.Dir); got != "11" || err != nil {
		t.Errorf("Major: %q, %v, want 11", got, err)
	}
	s.createFails(t, "config_invalid", s.Dir, "Postgres 11", "version "+s.Install.Version, "locald down -v db")

	if err := os.Rename(filepath.Join(data, "PG_VERSION"), filepath.Join(data, "precious")); err != nil {
		t.Fatal(err)
	}
	s.createFails(t, "state_damaged", data, "PG_VERSION", "locald down -v db")
	if _, err := os.Stat(filepath.Join(data, "precious")); err != nil {
		t.Error(err)
	}
}

func TestServerStartsAfterKill(t *testing.T) {
	s := newStand(t)
	s.create(t)
	c := s.start(t)
	s.exec(t, "CREATE TABLE kept AS SELECT 'still here' AS words")
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.done
	_ = c.Remove(t.Context())
	if _, err := os.Stat(filepath.Join(s.Dir, "data/postmaster.pid")); err != nil {
		t.Fatalf("a killed server leaves its lock file: %v", err)
	}
	s.create(t)
	s.start(t)
	if got := s.query(t, "SELECT words FROM kept"); got != "still here" {
		t.Errorf("got %q", got)
	}
}

// The machine was restarted, and the server's number has gone to a process of
// the same user.
func TestServerStartsWhenItsNumberWasTaken(t *testing.T) {
	s := newStand(t)
	s.create(t)
	other := exec.Command("cat")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = other.Wait() })
	lock := filepath.Join(s.Dir, "data/postmaster.pid")
	for _, content := range []string{fmt.Sprintf("%d\n%s\n1700000000\n5432\n", other.Process.Pid, s.Dir), ""} {
		write(t, lock, content)
		s.create(t)
		s.stop(t, s.start(t))
	}
}

func TestDataInUseIsLeftAlone(t *testing.T) {
	s := newStand(t)
	s.create(t)
	c := s.start(t)
	s.createFails(t, "stop_failed", s.Dir, "in use", fmt.Sprintf("kill -INT %d", c.Info().PID))
	s.query(t, "SELECT 'yes'")
}

func TestLongPathsDoNotMatter(t *testing.T) {
	s := newStand(t, "CREATE TABLE a AS SELECT 'yes' AS words")
	s.Dir = filepath.Join(s.Dir, strings.Repeat("long/", 30), `a, "b" $c`)
	s.create(t)
	s.start(t)
	if got := s.query(t, "SELECT words FROM a"); got != "yes" {
		t.Errorf("got %q", got)
	}
	if left, _ := filepath.Glob(fmt.Sprintf("/tmp/locald-%d-pg-*", os.Getuid())); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestOddNames(t *testing.T) {
	s := newStand(t, "CREATE TABLE a AS SELECT 'yes' AS words")
	s.Credentials.User, s.Credentials.Database = `Ana Ünal = %s`, `my "shop" = 'é'`
	s.create(t)
	s.start(t)
	if got := s.query(t, "SELECT words FROM a"); got != "yes" {
		t.Errorf("got %q", got)
	}
}

func TestComplaint(t *testing.T) {
	for output, want := range map[string]string{
		"": "",
		"\ninitdb: could not look up effective user ID 7: user does not exist\n":                             "initdb: could not look up effective user ID 7: user does not exist",
		"psql:/p/a.sql:1: NOTICE:  x\npsql:/p/a.sql:2: ERROR:  y\nLINE 1: z":                                 "a.sql:2: ERROR: y",
		"psql:/other/a.sql:2: error: invalid command":                                                        "/other/a.sql:2: error: invalid command",
		"psql: error: /p/a.sql: Permission denied":                                                           "error: /p/a.sql: Permission denied",
		"2026-01-01 00:00:00.000 UTC [7] FATAL:  could not write: No space left on device\ninitdb: removing": "FATAL: could not write: No space left on device",
	} {
		if got := complaint(output, "/p"); got != want {
			t.Errorf("%q: got %q, want %q", output, got, want)
		}
	}
}

// nobody is the unprivileged user of every Unix.
const nobody = 65534

// What root runs in these tests, an ordinary user must be able to run as well.
func TestAsAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests run as an ordinary user already")
	}
	newStand(t)
	dir, err := os.MkdirTemp("", "locald-ordinary-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chown(dir, nobody, nobody), copyFile(filepath.Join(dir, "test"), os.Args[0])); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "test"), "-test.v",
		"-test.run=^(TestServerAnswersWithPasswordAndKeepsData|TestInitScriptsRunOnceInOrder|TestServerStartsAfterKill)$")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir, "LOCALD_TEST_REQUIRE=postgres"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(out, []byte("--- PASS")) != 3 {
		t.Errorf("%v\n%s", err, out)
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func TestProgressIsReported(t *testing.T) {
	s := newStand(t, "")
	var steps []string
	if err := s.Create(t.Context(), s.rt, s.base, func(p runtime.Progress) { steps = append(steps, p.Step) }); err != nil {
		t.Fatal(err)
	}
	want := []string{"creating the data directory", "creating the database shop", "running the init scripts", "writing the data to disk"}
	if !slices.Equal(steps, want) {
		t.Errorf("got %q, want %q", steps, want)
	}
	var made origin
	content, err := os.ReadFile(filepath.Join(s.Dir, "data", madeFile))
	if err != nil || json.Unmarshal(content, &made) != nil ||
		made.User != s.Credentials.User || made.Database != s.Credentials.Database || !made.has(s.Credentials.Password) {
		t.Errorf("the data says it was made for %s (%v), want %v", content, err, s.Credentials)
	}
	if bytes.Contains(content, []byte(s.Credentials.Password)) {
		t.Error("the data directory has the password in it")
	}
}
