package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/locald/locald/hack/podman"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

// patience is how long a script waits for what must come.
const patience = 20 * time.Second

// mark is the variable that tells which script a process belongs to. Everything
// that is started for a script inherits it. It must not begin with LOCALD_.
const mark = "SCRIPT_MARK"

// TestMain is the test, and the programs that the scripts use: locald itself,
// and stub, which its services run.
func TestMain(m *testing.M) {
	// Scripts mostly wait. -parallel on the command line still wins.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"locald": main,
		"stub":   stub,
	})
}

// TestScripts meets locald as its users do. A script has a state directory, a
// daemon and a work directory of its own, and leaves no process behind.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		Setup:              setup,
		Condition:          condition,
		Cmds:               commands,
		RequireUniqueNames: true,
	})
}

// promises are the sentences of docs/promises.md that scripts are for.
var promises = map[string]string{
	"doctor_leftovers":        "P1 P4",
	"doctor_leftovers_engine": "P9",
	"down_noengine":           "P2 P9",
	"down_survivor":           "P2",
	"down_verify":             "P1",
}

// inherited are the variables of this process that scripts get.
var inherited = []string{"DOCKER_HOST", "GOCOVERDIR", "GORACE", "GOMAXPROCS"}

func setup(e *testscript.Env) error {
	id := fmt.Sprintf("%d-%s", os.Getpid(), filepath.Base(e.WorkDir))
	e.Setenv(mark, id)
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("XDG_DATA_HOME", filepath.Join(e.WorkDir, ".data"))
	e.Setenv("LOCALD_SANDBOX", "t")
	for _, name := range inherited {
		if value, set := os.LookupEnv(name); set {
			e.Setenv(name, value)
		}
	}
	t, ok := e.T().(testing.TB)
	if !ok {
		return errors.New("the test has no way to report what is left")
	}
	if ids := promises[strings.TrimPrefix(filepath.Base(e.WorkDir), "script-")]; ids != "" {
		t.Attr("promise", ids)
	}
	e.Values["held"] = &holdings{}
	e.Defer(func() { cleanUp(t, e, id) })
	return nil
}

// holdings are what a script keeps until its end.
type holdings struct {
	closers   []func()
	signalled *exec.Cmd
	proxy     *proxy
	podman    *podman.Service
	last      []func() error // once the script's daemons have left
}

func holdingsOf(ts *testscript.TestScript) *holdings { return ts.Value("held").(*holdings) }

func hold(ts *testscript.TestScript, release func()) {
	h := holdingsOf(ts)
	h.closers = append(h.closers, release)
}

// cleanUp stops the script's daemons, and fails the test for every process and
// container that is left.
func cleanUp(t testing.TB, e *testscript.Env, id string) {
	for _, release := range e.Values["held"].(*holdings).closers {
		release()
	}
	for _, dir := range stateDirs(e.Getenv("XDG_DATA_HOME")) {
		if err := stopDaemon(dir); err != nil {
			t.Errorf("teardown: %v", err)
		}
		for _, left := range containers(t, dir) {
			t.Errorf("left behind: %s", left)
		}
	}
	for _, end := range e.Values["held"].(*holdings).last {
		if err := end(); err != nil {
			t.Errorf("teardown: %v", err)
		}
	}
	for _, left := range marked(id) {
		t.Errorf("left behind: process %d: %s", left.pid, left.command)
		_ = unix.PidfdSendSignal(left.fd, unix.SIGKILL, nil, 0)
		_ = unix.Close(left.fd)
	}
}

// stateDirs are the directories of all daemons that a script has started.
func stateDirs(home string) []string {
	var dirs []string
	_ = filepath.WalkDir(home, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "instance.json" {
			dirs = append(dirs, filepath.Dir(path))
		}
		return nil
	})
	return dirs
}

// daemonAt is what the daemon of a state directory says of itself.
func daemonAt(ctx context.Context, dir string) (ipc.Daemon, error) {
	var record state.Daemon
	if err := state.Read(filepath.Join(dir, "daemon.json"), &record); err != nil {
		return ipc.Daemon{}, err
	}
	var d ipc.Daemon
	err := (&ipc.Client{Socket: record.Socket}).Call(ctx, ipc.CallPing, nil, &d)
	return d, err
}

// stopDaemon asks the daemon of a state directory to leave, if there is one,
// and waits until it has.
func stopDaemon(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := daemonAt(ctx, dir)
	if errors.Is(err, ipc.ErrNoDaemon) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the daemon of %s: %w", dir, err)
	}
	return end(d.PID, unix.SIGTERM)
}

// end sends a signal to a process and waits until it has ended.
func end(pid int, signal unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %v to process %d: %w", signal, pid, err)
	}
	if !ended(fd, patience) {
		return fmt.Errorf("process %d still runs %v after %v", pid, patience, signal)
	}
	return nil
}

// ended waits for the end of a process.
func ended(pidfd int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for {
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 1
		}
	}
}

// process is one that carries the mark of a script.
type process struct {
	pid, fd int
	command string
}

// marked are the processes of a script that do not end by themselves within a
// moment: what has just been told to end may still be on its way.
func marked(id string) []process {
	var left []process
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err != nil || !strings.Contains("\x00"+string(environ), "\x00"+mark+"="+id+"\x00") || ended(fd, time.Second) {
			_ = unix.Close(fd)
			continue
		}
		command, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		left = append(left, process{pid, fd, strings.ReplaceAll(string(command), "\x00", " ")})
	}
	return left
}

// containers removes what an instance has left in Docker, and says what it was.
func containers(t testing.TB, dir string) []string {
	if !docker() {
		return nil
	}
	var record struct {
		Instance string `json:"instance"`
	}
	if err := state.Read(filepath.Join(dir, "instance.json"), &record); err != nil || record.Instance == "" {
		t.Errorf("teardown: instance.json of %s: %q, %v", dir, record.Instance, err)
		return nil
	}
	var left []string
	for _, kind := range []string{"container", "network", "volume"} {
		list := []string{kind, "ls", "-q", "--filter", "label=dev.locald.instance=" + record.Instance}
		if kind == "container" {
			list = append(list, "-a")
		}
		out, err := exec.Command("docker", list...).Output()
		if err != nil {
			t.Errorf("teardown: docker %v: %v", list, err)
		}
		for _, name := range strings.Fields(string(out)) {
			left = append(left, kind+" "+name)
			if out, err := exec.Command("docker", kind, "rm", "-f", name).CombinedOutput(); err != nil {
				t.Errorf("teardown: docker %s rm %s: %s", kind, name, out)
			}
		}
	}
	images, err := exec.Command("docker", "image", "ls", "-q", "--filter", "label=dev.locald.built.instance="+record.Instance).Output()
	if err != nil {
		t.Errorf("teardown: docker image ls: %v", err)
	}
	for _, name := range strings.Fields(string(images)) { // they are meant to stay
		if out, err := exec.Command("docker", "image", "rm", "-f", name).CombinedOutput(); err != nil {
			t.Errorf("teardown: docker image rm %s: %s", name, out)
		}
	}
	return left
}

// condition is what a script may depend on. What LOCALD_TEST_REQUIRE names must
// be there: then its absence is an error rather than a reason to skip.
func condition(name string) (bool, error) {
	var there bool
	switch name {
	case "docker":
		there = docker()
	case "postgres":
		there = postgres()
	case "podman":
		there = podman.Missing() == ""
	case "root":
		return os.Getuid() == 0, nil
	default:
		return false, fmt.Errorf("unknown condition %q", name)
	}
	if !there && strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), name) {
		return false, fmt.Errorf("%s is required and is not here", name)
	}
	return there, nil
}

// docker reports whether an engine answers that has the test images.
func docker() bool {
	conn, err := net.DialTimeout("unix", "/var/run/docker.sock", time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return exec.Command("docker", "image", "inspect", "locald-test/shell:1", "locald-test/postgres:15").Run() == nil
}

// postgres reports whether this machine has the programs of a Postgres server.
func postgres() bool {
	if _, err := exec.LookPath("postgres"); err == nil {
		return true
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	return err == nil && len(found) > 0
}
