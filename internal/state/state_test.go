package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
)

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestLocate(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	sandboxes := filepath.Join(home, "locald", "sandboxes")
	tests := []struct {
		name    string
		vars    map[string]string
		sandbox string
		dir     string // or what the error says
		socket  string
		bad     bool
	}{
		{name: "the user's own", vars: map[string]string{}, dir: filepath.Join(home, "locald")},
		{name: "a sandbox", sandbox: "dev", dir: filepath.Join(sandboxes, "dev"), socket: filepath.Join(sandboxes, "dev", "locald.sock")},
		{name: "a sandbox by its socket", vars: map[string]string{SandboxVar: "1", SocketVar: filepath.Join(sandboxes, "dev", "locald.sock")}, dir: filepath.Join(sandboxes, "dev"), socket: filepath.Join(sandboxes, "dev", "locald.sock")},
		{name: "a socket of its own", vars: map[string]string{SandboxVar: "1", SocketVar: "/run/x.sock"}, dir: filepath.Join(sandboxes, "socket-"+digest("/run/x.sock")), socket: "/run/x.sock"},
		{name: "a socket alone", vars: map[string]string{SocketVar: "/run/x.sock"}, bad: true, dir: "LOCALD_SANDBOX_ACTIVE is not 1"},
		{name: "a socket, nearly", vars: map[string]string{SandboxVar: "true", SocketVar: "/run/x.sock"}, sandbox: "dev", bad: true, dir: "LOCALD_SANDBOX_ACTIVE is not 1"},
		{name: "a relative socket", vars: map[string]string{SandboxVar: "1", SocketVar: "x.sock"}, bad: true, dir: "not an absolute path"},
		{name: "a sandbox that leaves its place", sandbox: "../x", bad: true, dir: `sandbox "../x"`},
	}
	for _, test := range tests {
		vars := map[string]string{"XDG_DATA_HOME": home}
		for k, v := range test.vars {
			vars[k] = v
		}
		p, err := Locate(env(vars), test.sandbox)
		var fault *runtime.Fault
		switch {
		case test.bad && (!errors.As(err, &fault) || !strings.Contains(err.Error(), test.dir)):
			t.Errorf("%s: %v, want an error with %q", test.name, err, test.dir)
		case !test.bad && (err != nil || p.Dir != test.dir || test.socket != "" && p.Socket != test.socket):
			t.Errorf("%s: %+v, %v; want %s and %s", test.name, p, err, test.dir, test.socket)
		}
	}
}

func TestAStateDirectoryIsTheUsersAlone(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P17 F67")
	p := Places{Dir: filepath.Join(t.TempDir(), "locald")}
	if err := p.Make(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(p.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("made with %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(p.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var fault *runtime.Fault
	for _, mode := range []os.FileMode{0o755, 0o770, 0o720, 0o777} {
		if err := os.Chmod(p.Dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := p.Make(); !errors.As(err, &fault) || fault.Hint != "chmod 0700 "+p.Dir {
			t.Errorf("%04o: %v", mode, err)
		}
	}
	link := Places{Dir: p.Dir + "-link"}
	if err := os.Symlink(p.Dir, link.Dir); err != nil {
		t.Fatal(err)
	}
	if err := link.Make(); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link: %v", err)
	}
}

func TestOneDaemonAStateDirectory(t *testing.T) {
	t.Parallel()
	p := Places{Dir: t.TempDir()}
	held, err := Lock(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(p); !errors.Is(err, ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	held.Release()
	again, err := Lock(p)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	again.Release()
}

func TestAFileIsWrittenWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sub", "p.json")
	if err := Write(path, Project{Format: Format, ID: "a", Dir: "/a"}, Care{Power: true}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want 0600", info.Mode(), err)
	}
	if err := Write(path, map[string]any{"no": func() {}}, Care{}); err == nil {
		t.Error("what is no JSON was written")
	}
	var p Project
	if err := Read(path, &p); err != nil || p.ID != "a" {
		t.Errorf("the old one: %+v, %v", p, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTheLastHundredRunsAreRemembered(t *testing.T) {
	t.Parallel()
	var s Service
	if s.Next() != 1 || s.Started() {
		t.Errorf("before the first: next %d, started %v", s.Next(), s.Started())
	}
	for n := 1; n <= 250; n++ {
		s = s.With(Run{Run: n})
		s = s.With(Run{Run: n, Start: time.Unix(int64(n), 0)})
	}
	if len(s.Runs) != 100 || s.Runs[0].Run != 151 || s.Next() != 251 || !s.Started() {
		t.Errorf("%d runs from %d, next %d", len(s.Runs), s.Runs[0].Run, s.Next())
	}
	late := s.With(Run{Run: 249, Reason: "told late"})
	if late.Next() != 251 || late.Runs[98].Reason != "told late" || len(late.Runs) != 100 {
		t.Errorf("a run that ended after the next began: next %d, %+v", late.Next(), late.Runs[97:])
	}
	if missed := s.With(Run{Run: 300}).With(Run{Run: 299}); missed.Next() != 301 {
		t.Errorf("told of late: next %d", missed.Next())
	}
	zero := 0
	s.Task = true
	if s.Done() || !s.With(Run{Run: 250, Code: &zero}).Done() {
		t.Error("a task is done once its last run ended with 0, and not before")
	}
}

// TestNumbersAreNotGivenAgain: the number of a run is known although nothing
// else of the run could be written, and the run is one whose end nobody saw.
func TestNumbersAreNotGivenAgain(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P14 F63")
	s := Store{Dir: t.TempDir()}
	r, _ := s.Records("a")
	long := strings.Repeat("w", 100)
	for _, name := range []string{"web", long, "db"} {
		for _, run := range []int{1, 9, 10} {
			if err := r.Begin(name, run); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, problems := s.Records("a")
	for _, name := range []string{"web", long, "db"} {
		if got := r.Services()[name]; got.Next() != 11 || got.Name != name || !got.Started() || len(problems) > 0 {
			t.Errorf("%+v %v", got, problems)
		}
	}
	if err := errors.Join(r.Begin("db", 11), r.Save(Service{Name: "web", Runs: []Run{{Run: 12}}})); err != nil {
		t.Fatal(err)
	}
	r, _ = s.Records("a")
	if services := r.Services(); services["web"].Next() != 13 || services["db"].Next() != 12 || len(services) != 3 {
		t.Errorf("%+v", services)
	}
	file, err := os.OpenFile(filepath.Join(s.Project("a"), "numbers"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte("damaged"), 0); err != nil {
		t.Fatal(err)
	}
	r, _ = s.Records("a")
	if services := r.Services(); services["web"].Next() != 13 || services[long].Next() != 11 || services["db"].Next() != 12 {
		t.Errorf("%+v", services)
	}
	if err := r.Begin("web", 13); err != nil {
		t.Fatal(err)
	}
	r, _ = s.Records("a")
	if services := r.Services(); services["web"].Next() != 14 || services[long].Next() != 11 || services["db"].Next() != 12 {
		t.Errorf("%+v", services)
	}
}

// TestARecordedSocketOfSomebodyElseIsDropped: root gives away what the record
// names, as another user would who puts a socket there when ours is gone.
func TestARecordedSocketOfSomebodyElseIsDropped(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P17 S1")
	if os.Getuid() != 0 {
		t.Skip("needs root to give a file to another user")
	}
	const other = 4243
	home := t.TempDir()
	s := Store{Dir: filepath.Join(home, "locald")}
	socket, log := filepath.Join(home, "there.sock"), filepath.Join(home, "there.log")
	if err := s.SaveDaemon(Daemon{PID: 1, Socket: socket, Log: log}); err != nil {
		t.Fatal(err)
	}
	locate := func() Places {
		t.Helper()
		p, err := Locate(env(map[string]string{"XDG_DATA_HOME": home}), "")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := locate(); p.Socket != socket || p.Log != log {
		t.Errorf("nothing is there: %+v", p)
	}
	for _, path := range []string{socket, log} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p := locate(); p.Socket != socket || p.Log != log {
		t.Errorf("ours: %+v", p)
	}
	for _, path := range []string{socket, log} {
		if err := os.Chown(path, other, other); err != nil {
			t.Fatal(err)
		}
	}
	if p := locate(); p.Socket == socket || p.Log == log || !strings.HasPrefix(p.Socket, "/tmp/locald") {
		t.Errorf("somebody else's: %+v", p)
	}
	if err := errors.Join(os.Remove(socket), os.Remove(log), os.Chown(s.Dir, other, other)); err != nil {
		t.Fatal(err)
	}
	if p := locate(); p.Socket == socket || p.Log == log {
		t.Errorf("of a directory that is somebody else's: %+v", p)
	}
	var fault *runtime.Fault
	if err := locate().Make(); !errors.As(err, &fault) || !strings.Contains(fault.Hint, "chown") {
		t.Errorf("make: %v", err)
	}
}
