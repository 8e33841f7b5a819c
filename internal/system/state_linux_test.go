package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

const keeping = `[project]
name = "state"

[services.app]
command = ["$PROGRAM", "once", "app.notes"]

[services.other]
type = "worker"
command = ["$PROGRAM", "once", "other.notes"]
`

// TestStateRemovedWhileRunning removes what makes the daemon the one of its
// state directory. At once a client finds it again, with the services as they
// were and no second daemon beside it.
func TestStateRemovedWhileRunning(t *testing.T) {
	promise(t, "P15 P14 P5 F66 F70")
	cases := []struct {
		name   string
		remove func(p state.Places) error
		lost   bool // what was recorded went with it
	}{
		{"the directory", func(p state.Places) error { return errors.Join(removed(p.Dir), unlisted(p.Socket)) }, true},
		{"the directory, moved away", func(p state.Places) error { return os.Rename(p.Dir, p.Dir+".old") }, true},
		{"all that is in it", func(p state.Places) error {
			entries, err := os.ReadDir(p.Dir)
			for _, e := range entries {
				err = errors.Join(err, removed(filepath.Join(p.Dir, e.Name())))
			}
			return err
		}, true},
		{"the lock", func(p state.Places) error { return os.Remove(filepath.Join(p.Dir, "lock")) }, false},
		{"the socket", func(p state.Places) error { return os.Remove(p.Socket) }, false},
		{"the lock and the socket", func(p state.Places) error {
			return errors.Join(os.Remove(filepath.Join(p.Dir, "lock")), os.Remove(p.Socket))
		}, false},
	}
	rounds, failures := times(1, 10), 0
	for _, c := range cases {
		for range rounds {
			if !t.Run(c.name, func(t *testing.T) { stateRemoved(t, c.remove, c.lost) }) {
				failures++
			}
		}
	}
	tried(t, rounds*len(cases), failures)
}

// removed removes a directory in which the daemon may write meanwhile.
func removed(dir string) error {
	for {
		if err := os.RemoveAll(dir); !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
}

// unlisted removes a socket that need not be there.
func unlisted(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func stateRemoved(t *testing.T, remove func(p state.Places) error, lost bool) {
	s := newSandbox(t, config(keeping))
	s.run("up")
	before := s.status()
	running(t, before)
	if err := remove(s.places()); err != nil {
		t.Fatal(err)
	}
	s.run("server", "start", "--daemonize") // as clients do that find no daemon, all of which are told of the one
	after := s.status()
	if after.Daemon.PID != before.Daemon.PID {
		t.Errorf("daemon %d became %d", before.Daemon.PID, after.Daemon.PID)
	}
	s.same(before)
	if !lost {
		s.run("up", "--force-recreate", "app")
		running(t, s.status())
		return
	}
	for _, command := range [][]string{{"up"}, {"down"}, {"restart", "app"}} {
		r := s.try(append(command, "--json")...)
		if r.code != 1 || !strings.Contains(r.stdout+r.stderr, "state_damaged") || !strings.Contains(r.stdout+r.stderr, "locald server restart") {
			t.Errorf("%v: %v", command, r)
		}
	}
	if r := s.try("doctor"); r.code != 1 || !strings.Contains(r.stdout, "it was removed while services run") {
		t.Errorf("doctor: %v", r)
	}
	s.same(before)
	s.run("server", "restart")
	restored := s.until("running again", func(now ipc.Status) bool {
		return of(now, "app").State == "running" && of(now, "other").State == "running"
	})
	again(t, before, restored)
	s.exactly(s.status())
	s.run("up")
	s.starts("app.notes")
}

// TestStateReadOnlyWhileRunning: an ordinary user's directory loses its write
// permission. Services go on, a change says why it cannot be, and it can be once
// the hint was followed.
func TestStateReadOnlyWhileRunning(t *testing.T) {
	promise(t, "P14 F66")
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	s := newSandbox(t, config(keeping))
	const user = 4243
	s.as = func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	owned(t, s.root, user)
	s.run("up")
	before := s.status()
	projects, err := filepath.Glob(filepath.Join(s.places().Dir, "projects", "*"))
	if err != nil || len(projects) != 1 {
		t.Fatal(projects, err)
	}
	if err := os.Chmod(projects[0], 0o500); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"up", "down"} {
		r := s.try(command, "--json")
		if r.code != 1 || !strings.Contains(r.stdout+r.stderr, "permission_denied") || !strings.Contains(r.stdout+r.stderr, "chmod u+rwx "+projects[0]) {
			t.Errorf("%s: %v", command, r)
		}
	}
	s.same(before)
	if err := os.Chmod(projects[0], 0o700); err != nil {
		t.Fatal(err)
	}
	s.run("down")
}

// owned gives everything below dir to a user.
func owned(t *testing.T, dir string, user int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, user, user))
	})
	if err != nil {
		t.Fatal(err)
	}
	for parent := filepath.Dir(dir); parent != "/" && parent != os.TempDir(); parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedState kills the daemon and damages each of its files in turn. The
// next one starts, says what became of the file, and ends what was left behind:
// nothing runs twice.
func TestDamagedState(t *testing.T) {
	promise(t, "P14 P4 P5 F65")
	damages := []struct {
		name string
		harm func(path string) error
	}{
		{"empty", func(path string) error { return os.Truncate(path, 0) }},
		{"NUL-filled", func(path string) error { return os.WriteFile(path, make([]byte, 4096), 0o600) }},
		{"1 GB", func(path string) error { return os.Truncate(path, 1<<30) }},
		{"foreign version", func(path string) error { return os.WriteFile(path, []byte(`{"format":99}`), 0o600) }},
		{"a directory", func(path string) error {
			return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "inside"), 0o700))
		}},
	}
	files := []string{"instance.json", "daemon.json", "projects/*/project.json", "projects/*/environment.json", "projects/*/services.jsonl"}
	runs := 0
	for i, d := range damages {
		for j, file := range files {
			if !full() && (i+j)%len(damages) != 0 && file != "projects/*/project.json" {
				continue
			}
			runs++
			t.Run(strings.ReplaceAll(file, "/", " ")+", "+d.name, func(t *testing.T) { damaged(t, file, d.harm) })
		}
	}
	if !t.Failed() {
		tried(t, runs, 0)
	}
}

func damaged(t *testing.T, file string, harm func(path string) error) {
	s := newSandbox(t, config(keeping))
	s.run("up")
	s.run("up", "--force-recreate", "app") // and there is a copy before the last
	before := s.status()
	daemon := before.Daemon.PID
	s.written("app", fmt.Sprintf(`"run":%d`, of(before, "app").Run))
	found, err := filepath.Glob(filepath.Join(s.places().Dir, file))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	kill(t, daemon)
	if err := harm(found[0]); err != nil {
		t.Fatal(err)
	}
	after := s.until("up again", func(now ipc.Status) bool {
		return of(now, "app").State == "running" && of(now, "other").State == "running"
	})
	again(t, before, after)
	s.starts("app.notes")
	s.starts("other.notes")
	s.exactly(s.status())
	if file == "daemon.json" {
		return // it is written at each start, and nothing is read from it that is missed
	}
	aside, _ := filepath.Glob(found[0] + ".bad-*")
	if len(aside) != 1 {
		t.Fatalf("put aside: %v", aside)
	}
	log, err := os.ReadFile(s.places().Log)
	if err != nil || !strings.Contains(string(log), aside[0]) {
		t.Errorf("the daemon's log does not name %s: %v", aside[0], err)
	}
	var report ipc.Doctor
	if err := json.Unmarshal([]byte(s.try("doctor", "--json").stdout), &report); err != nil {
		t.Fatal(err)
	}
	named := false
	for _, c := range report.Checks {
		named = named || c.Area == "state" && strings.Contains(c.Detail, aside[0])
	}
	if !named {
		t.Errorf("doctor does not name %s", aside[0])
	}
}

// TestALostRecord: with no copy left nothing is known of what was wanted. That
// is said, and not taken for "nothing", until an up.
func TestALostRecord(t *testing.T) {
	promise(t, "P14 F65")
	s := newSandbox(t, config(keeping))
	s.run("up")
	found, _ := filepath.Glob(filepath.Join(s.places().Dir, "projects", "*", "project.json"))
	if len(found) != 1 {
		t.Fatal(found)
	}
	kill(t, s.status().Daemon.PID)
	if err := os.Truncate(found[0], 5); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := s.try("status", "--json")
		if r.code != 1 || !strings.Contains(r.stderr, "state_damaged") || !strings.Contains(r.stderr, found[0]+".bad-") || !strings.Contains(r.stderr, "locald up") {
			t.Errorf("status: %v", r)
		}
		s.run("server", "restart")
	}
	s.run("up")
	running(t, s.status())
	s.starts("app.notes")
	s.exactly(s.status())
}

// TestABackoffGoesOnAfterAKill: the daemon is killed while a service rests. The
// next one rests it to the end, and counts on.
func TestABackoffGoesOnAfterAKill(t *testing.T) {
	promise(t, "P8 F31")
	s := newSandbox(t, "[services.crash]\ncommand = \"exit 3\"\nbackoff = \"5s\"\nmax_restarts = 2\n")
	s.run("up", "--detach")
	before := s.until("resting", func(now ipc.Status) bool { return of(now, "crash").State == "backoff" })
	s.written("crash", `"until"`)
	kill(t, before.Daemon.PID)
	s.until("resting on", func(now ipc.Status) bool {
		svc := of(now, "crash")
		if now.Daemon.PID != before.Daemon.PID && svc.Run > 1 {
			t.Fatalf("it did not rest on: %+v", svc)
		}
		return now.Daemon.PID != before.Daemon.PID && svc.State == "backoff"
	})
	last := s.until("given up", func(now ipc.Status) bool { return of(now, "crash").State == "failed" })
	if svc := of(last, "crash"); svc.Run != 3 || !strings.Contains(svc.Reason, "gave up after 2 restarts") {
		t.Errorf("in the end: %+v", svc)
	}
	var history ipc.History
	if err := json.Unmarshal([]byte(s.run("status", "--history", "--json").stdout), &history); err != nil || len(history.Runs) != 3 {
		t.Fatal(err, history)
	}
	rests := []time.Duration{5 * time.Second, 10 * time.Second}
	for i, want := range rests {
		end, err1 := time.Parse(time.RFC3339Nano, history.Runs[2-i].End)
		start, err2 := time.Parse(time.RFC3339Nano, history.Runs[1-i].Start)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if got := start.Sub(end); got < want*9/10-10*time.Millisecond {
			t.Errorf("rest %d was %v, want %v", i+1, got, want)
		}
	}
	s.written("crash", "gave up after 2 restarts")
	kill(t, last.Daemon.PID)
	if svc := of(s.status(), "crash"); svc.State != "failed" || svc.Run != 3 {
		t.Errorf("given up, then killed: %+v", svc)
	}
}

// written waits until a line of a service's records, which are written behind,
// has a text.
func (s *sandbox) written(name, text string) {
	s.t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		files, _ := filepath.Glob(filepath.Join(s.places().Dir, "projects", "*", "services.jsonl"))
		if len(files) == 1 {
			content, _ := os.ReadFile(files[0]) // it may be replaced meanwhile
			for line := range strings.Lines(string(content)) {
				if strings.Contains(line, `"name":"`+name+`"`) && strings.Contains(line, text) {
					return
				}
			}
		}
		<-time.After(5 * time.Millisecond)
	}
	s.t.Fatalf("the record of %s never has %s", name, text)
}

// TestLogsAreKeptAsLongAsTheProjectSays: old output goes by size and by age, each
// project by its own setting in the one keeper. Numbers go on, and a reader is
// told where lines are no longer stored.
func TestLogsAreKeptAsLongAsTheProjectSays(t *testing.T) {
	promise(t, "P11")
	const chatter = `[project]
logs = { size = "1MB" }

[services.chatter]
type = "task"
command = "i=0; while [ $i -lt 40000 ]; do echo line $i ----------------------------------------------------------------; i=$((i+1)); done"
`
	s := newSandbox(t, chatter)
	neighbour := filepath.Join(s.root, "neighbour")
	if err := os.Mkdir(neighbour, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(neighbour, "locald.toml"), []byte(strings.Replace(chatter, `"1MB"`, `"100MB"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("up")
	s.run("-C", neighbour, "up")
	var first, last ipc.LogLine
	lines := strings.Split(strings.TrimSpace(s.run("logs", "--json").stdout), "\n")
	if err := errors.Join(json.Unmarshal([]byte(lines[0]), &first), json.Unmarshal([]byte(lines[len(lines)-2]), &last)); err != nil {
		t.Fatal(err)
	}
	if first.Stream != "gap" || first.Line != "these lines are no longer stored" || first.MissingBytes == 0 {
		t.Errorf("the first is %+v", first)
	}
	if last.Seq != 40000 || !strings.HasPrefix(last.Line, "line 39999 ") {
		t.Errorf("the last is %+v", last)
	}
	if size := s.stored("project"); size > 1<<20+1<<17 || size < 1<<19 {
		t.Errorf("%d bytes are stored", size)
	}
	if size := s.stored("neighbour"); size < 40000*70 {
		t.Errorf("of the neighbour %d bytes are stored", size)
	}

	segments, _ := filepath.Glob(filepath.Join(s.places().Dir, "projects", "project-*", "logs", "chatter", "*.log"))
	ago := time.Now().Add(-8 * 24 * time.Hour)
	for _, segment := range segments {
		if err := os.Chtimes(segment, ago, ago); err != nil {
			t.Fatal(err)
		}
	}
	s.write("locald.toml", strings.Replace(chatter, `size = "1MB"`, `size = "2MB"`, 1))
	s.run("up", "chatter") // the limit of 7 days counts from here on
	for _, segment := range segments[:len(segments)-1] {
		if _, err := os.Lstat(segment); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is 8 days old and there: %v", segment, err)
		}
	}
	again := s.run("logs", "--json", "--tail", "3").stdout
	if !strings.Contains(again, `"run":2`) || !strings.Contains(again, "line 39999 ") || !strings.Contains(again, `"seq":80`) {
		t.Errorf("the second run: %s", again)
	}
}

// stored is how many bytes of logs a project has.
func (s *sandbox) stored(project string) (size int64) {
	s.t.Helper()
	segments, _ := filepath.Glob(filepath.Join(s.places().Dir, "projects", project+"-*", "logs", "*", "*.log"))
	for _, segment := range segments {
		if info, err := os.Stat(segment); err == nil {
			size += info.Size()
		}
	}
	return size
}

// TestACopiedStateDirectory: a daemon that is started on a copy, while the
// original runs, signals nothing of the original's, nor of a bystander that has a
// number which the copy has written down.
func TestACopiedStateDirectory(t *testing.T) {
	promise(t, "P3 F17 F18")
	s := newSandbox(t, config(keeping))
	s.run("up")
	before := s.status()
	other := filepath.Join(s.root, "data", "locald", "sandboxes", "copy")
	if err := os.MkdirAll(other, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"instance.json", "instance.json.previous", "daemon.json", "locald.pid", "projects"} {
		if out, err := exec.Command("cp", "-a", filepath.Join(s.places().Dir, file), other).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	s.run("--sandbox", "copy", "server", "start", "--daemonize")
	s.run("--sandbox", "copy", "down")
	s.run("--sandbox", "copy", "server", "stop")
	after := s.status()
	for _, svc := range before.Services {
		if now := of(after, svc.Name); now.PID != svc.PID || now.State != "running" || now.Run != svc.Run {
			t.Errorf("%s was %+v and is %+v", svc.Name, svc, now)
		}
	}
	s.exactly(after)
}
