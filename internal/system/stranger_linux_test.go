package system

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/ipc"
)

// Two users of one machine, neither of them root.
const (
	resident = 4242
	stranger = 4243
)

// house is a machine's /tmp and home of its own for two users, so that what
// they do at the usual places is seen by nobody else.
type house struct {
	t    *testing.T
	home string // of the resident
	dir  string // the resident's project
	more []string
}

// newHouse puts the calling test into a mount namespace of its own: it and what
// it starts see another /tmp. That is so for its thread alone, which ends with
// it, so everything must be called by the test's own goroutine.
func newHouse(t *testing.T) *house {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to become two other users")
	}
	programs := map[string][]byte{}
	for _, path := range []string{locald(), service()} {
		program, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		programs[filepath.Base(path)] = program
	}
	goruntime.LockOSThread() // and never unlocked: no other goroutine may get this thread
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skipf("no mount namespace of its own: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"); err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, home: "/tmp/home", dir: "/tmp/home/project"}
	if err := os.Mkdir("/tmp/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, program := range programs {
		if err := os.WriteFile("/tmp/bin/"+name, program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{h.home, h.dir, "/tmp/strange"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.put(filepath.Join(h.dir, "locald.toml"), "[project]\nname = \"house\"\n\n[services.web]\ntype = \"worker\"\ncommand = [\"/tmp/bin/service\", \"once\", \"web.notes\"]\n")
	h.put(filepath.Join(h.dir, ".env"), "API_TOKEN=mine\n")
	for path, owner := range map[string]int{h.home: resident, h.dir: resident, "/tmp/strange": stranger} {
		h.owns(path, owner)
	}
	t.Cleanup(func() {
		h.more = nil
		if r := h.run("server", "stop"); r.code != 0 {
			t.Errorf("server stop: %v", r)
		}
	})
	return h
}

// put writes a file of the resident's.
func (h *house) put(path, text string) {
	h.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.owns(path, resident)
}

func (h *house) owns(path string, uid int) {
	h.t.Helper()
	if err := os.Lchown(path, uid, uid); err != nil {
		h.t.Fatal(err)
	}
}

// as is a command of one of the users.
func (h *house) as(ctx context.Context, uid int, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = h.dir
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + h.home, "INHERITED_SECRET=mine too"}, h.more...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	return cmd
}

// run is locald, run by the resident.
func (h *house) run(args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.t.Context()), limit)
	defer cancel()
	cmd := h.as(ctx, resident, append([]string{"/tmp/bin/locald"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("locald %v: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), time.Since(began)}
}

// works proves that the resident's locald does what it should, and returns its
// status and where its daemon listens.
func (h *house) works() (status ipc.Status, daemon ipc.Daemon) {
	h.t.Helper()
	for _, args := range [][]string{{"up"}, {"restart", "web"}, {"status", "--check"}} {
		if r := h.run(args...); r.code != 0 {
			h.t.Fatalf("locald %v: %v", args, r)
		}
	}
	for into, args := range map[any][]string{&status: {"status", "--json"}, &daemon: {"server", "status", "--json"}} {
		if r := h.run(args...); r.code != 0 || json.Unmarshal([]byte(r.stdout), into) != nil {
			h.t.Fatalf("locald %v: %v", args, r)
		}
	}
	running(h.t, status)
	if doctor := h.run("doctor"); !strings.Contains(doctor.stdout, daemon.Socket) {
		h.t.Errorf("doctor does not say where the daemon listens: %v", doctor)
	}
	return status, daemon
}

// acts starts a program of the stranger's. Say what it is to read; end returns
// the last that it printed.
func (h *house) acts(args ...string) (in io.WriteCloser, said *bufio.Scanner, end func() string) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	cmd := h.as(ctx, stranger, append([]string{"/tmp/bin/service"}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	said = bufio.NewScanner(out)
	ended := false
	end = func() (last string) {
		if ended {
			return ""
		}
		ended = true
		in.Close()
		for said.Scan() {
			last = said.Text()
		}
		if err := cmd.Wait(); err != nil {
			h.t.Errorf("the stranger's %v: %v", args, err)
		}
		cancel()
		return last
	}
	h.t.Cleanup(func() { end() })
	return in, said, end
}

// squats has the stranger listen somewhere; stop proves that nothing was sent.
func (h *house) squats(sockets ...string) (stop func()) {
	h.t.Helper()
	_, said, end := h.acts(append([]string{"squat"}, sockets...)...)
	if !said.Scan() || said.Text() != "listening" {
		h.t.Fatalf("the stranger does not listen at %v", sockets)
	}
	return func() {
		h.t.Helper()
		var calls, sent int
		if last := end(); !scans(last, &calls, &sent) || sent != 0 {
			h.t.Errorf("the impostor at %v was called and sent so many bytes: %s", sockets, last)
		}
	}
}

func scans(text string, into ...*int) bool {
	words := strings.Fields(text)
	if len(words) != len(into) {
		return false
	}
	for i, word := range words {
		var err error
		if *into[i], err = strconv.Atoi(word); err != nil {
			return false
		}
	}
	return true
}

// TestStrangerReachesNothing: another user reads none of it, and signals and
// reaches none of it.
func TestStrangerReachesNothing(t *testing.T) {
	promise(t, "P17", "S1", "S2", "S3", "S5")
	h := newHouse(t)
	status, daemon := h.works()
	var attempts []string
	paths := []string{filepath.Join(h.home, ".local/share/locald"), daemon.Log, daemon.Socket}
	err := filepath.WalkDir(paths[0], func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		attempts = append(attempts, "read "+path, "write "+path, "list "+path, "remove "+path, "connect "+path)
	}
	pids := []int{daemon.PID, of(status, "web").PID}
	pids = append(pids, children(t, daemon.PID)...) // the keeper, and what speaks to engines since doctor has asked
	if len(pids) != 4 {
		t.Errorf("processes: %v", pids)
	}
	for _, pid := range pids {
		attempts = append(attempts, fmt.Sprintf("signal %d", pid))
		for _, file := range []string{"environ", "mem", "maps", "fd/0", "cwd/.env", "root/tmp/home/.local/share/locald/instance.json"} {
			attempts = append(attempts, fmt.Sprintf("read /proc/%d/%s", pid, file))
		}
	}
	in, said, _ := h.acts("tries")
	for _, attempt := range attempts {
		if _, err := fmt.Fprintln(in, attempt); err != nil || !said.Scan() {
			t.Fatalf("%s: the stranger has ended: %v", attempt, err)
		}
		if answer := said.Text(); answer == "done" {
			t.Errorf("a stranger may %s", attempt)
		}
	}
	after, _ := h.works()
	if after.Daemon.PID != status.Daemon.PID {
		t.Error("it is another daemon")
	}
	tried(t, len(attempts), 0)
}

func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	found, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if text, err := os.ReadFile(path); err == nil {
			for word := range strings.FieldsSeq(string(text)) {
				pids = append(pids, number(t, word))
			}
		}
	}
	return pids
}

// TestStrangerDelaysNobody: ten thousand attempts to connect, and more all the
// while, are not felt.
func TestStrangerDelaysNobody(t *testing.T) {
	promise(t, "P17", "S3", "F51")
	h := newHouse(t)
	_, daemon := h.works()
	const often = 10_000
	_, said, end := h.acts("crowd", daemon.Socket, strconv.Itoa(often))
	if !said.Scan() {
		t.Fatal("the stranger has ended")
	}
	var took []time.Duration
	for range 20 {
		r := h.run("status")
		if took = append(took, r.took); r.code != 0 {
			t.Errorf("status: %v", r)
		}
	}
	h.works()
	var attempts, held int
	if last := end(); !scans(last, &attempts, &held) || held != 0 {
		t.Errorf("the stranger tried, and had so many connections: %s", last)
	}
	t.Logf("status beside %d attempts: %s", attempts, spread(took))
	if percentile(took, 50) > 2*time.Second {
		t.Errorf("status took %s", spread(took))
	}
	tried(t, attempts, held)
}

// TestStrangerWasFirst: whatever another user has put at the usual places
// before, locald works, sends nothing there, and writes into nothing of it.
func TestStrangerWasFirst(t *testing.T) {
	const sock, mine, log, myLog = "/tmp/locald.sock", "/tmp/locald-4242.sock", "/tmp/locald.log", "/tmp/locald-4242.log"
	const precious = "/tmp/home/precious"
	inState := func(ext string) string { return "/tmp/home/.local/share/locald/locald." + ext }
	link := func(h *house, target, path string) {
		if err := os.Symlink(target, path); err != nil {
			h.t.Fatal(err)
		}
		h.owns(path, stranger)
	}
	fifo := func(h *house, path string) {
		if err := unix.Mkfifo(path, 0o666); err != nil {
			h.t.Fatal(err)
		}
		h.owns(path, stranger)
	}
	file := func(h *house, path string) {
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			h.t.Fatal(err)
		}
		h.owns(path, stranger)
	}
	dir := func(h *house, path string) {
		if err := os.Mkdir(path, 0o777); err != nil {
			h.t.Fatal(err)
		}
		h.owns(path, stranger)
	}
	for name, c := range map[string]struct {
		before      func(h *house) (after func())
		socket, log string
	}{
		"nothing":                    {func(*house) func() { return nil }, sock, log},
		"an impostor":                {func(h *house) func() { return h.squats(sock) }, mine, log},
		"two impostors":              {func(h *house) func() { return h.squats(sock, mine) }, inState("sock"), log},
		"a file for a socket":        {func(h *house) func() { file(h, sock); return nil }, mine, log},
		"a directory for a socket":   {func(h *house) func() { dir(h, sock); dir(h, mine); return nil }, inState("sock"), log},
		"a dangling link":            {func(h *house) func() { link(h, "/tmp/home/new", sock); link(h, "/tmp/home/new", log); return nil }, mine, myLog},
		"a link to a file of theirs": {func(h *house) func() { link(h, precious, log); link(h, precious, sock); return nil }, mine, myLog},
		"links everywhere": {func(h *house) func() {
			for _, path := range []string{sock, mine, log, myLog} {
				link(h, precious, path)
			}
			return nil
		}, inState("sock"), inState("log")},
		"a pipe for a log":      {func(h *house) func() { fifo(h, log); return nil }, sock, myLog},
		"pipes for logs":        {func(h *house) func() { fifo(h, log); fifo(h, myLog); return nil }, sock, inState("log")},
		"a file for a log":      {func(h *house) func() { file(h, log); return nil }, sock, myLog},
		"a directory for a log": {func(h *house) func() { dir(h, log); return nil }, sock, myLog},
		// The daemon has been there, and its places were taken when it had gone.
		"an impostor in its place": {func(h *house) func() {
			h.works()
			if r := h.run("server", "stop"); r.code != 0 {
				h.t.Fatalf("%v", r)
			}
			if err := os.Remove(log); err != nil {
				h.t.Fatal(err)
			}
			fifo(h, log)
			return h.squats(sock)
		}, mine, myLog},
	} {
		t.Run(name, func(t *testing.T) {
			promise(t, "P17", "S1", "S2", "S3", "F69")
			h := newHouse(t)
			h.put(precious, "precious")
			if after := c.before(h); after != nil {
				defer after()
			}
			status, daemon := h.works()
			if daemon.Socket != c.socket || daemon.Log != c.log {
				t.Errorf("socket %s and log %s, want %s and %s", daemon.Socket, daemon.Log, c.socket, c.log)
			}
			for _, path := range []string{daemon.Socket, daemon.Log} {
				info, err := os.Lstat(path)
				if err != nil || info.Mode().Perm() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != resident {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
			}
			// A crash changes none of it.
			kill(t, daemon.PID)
			if now, again := h.works(); now.Daemon.PID == status.Daemon.PID || again.Socket != c.socket {
				t.Errorf("after a crash: %+v", again)
			}
			if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
				t.Errorf("a file of the resident's has become %q, %v", text, err)
			}
			if _, err := os.Lstat("/tmp/home/new"); err == nil {
				t.Error("a file was made through the stranger's link")
			}
			tried(t, 1, 0)
		})
	}
}

// TestStrangerInTheWay: where there is no second place, locald refuses before it
// sends anything, changes nothing, and says what to type.
func TestStrangerInTheWay(t *testing.T) {
	const chosen = "/tmp/chosen.sock"
	for name, c := range map[string]struct {
		before func(h *house) (after func())
		says   []string
	}{
		"an impostor at a chosen socket": {func(h *house) func() {
			h.more = []string{"LOCALD_SANDBOX_ACTIVE=1", "LOCALD_SOCKET=" + chosen}
			return h.squats(chosen)
		}, []string{chosen + " belongs to another user", "hint: sudo rm " + chosen}},
		"an impostor behind a socket of theirs": {func(h *house) func() {
			h.more = []string{"LOCALD_SANDBOX_ACTIVE=1", "LOCALD_SOCKET=" + chosen}
			after := h.squats(chosen)
			h.owns(chosen, resident)
			return after
		}, []string{chosen + " is served by uid 4243, not by you (uid 4242)", "hint: rm " + chosen}},
		"an impostor behind the usual one": {func(h *house) func() {
			after := h.squats("/tmp/locald.sock")
			h.owns("/tmp/locald.sock", resident)
			return after
		}, []string{"/tmp/locald.sock is served by uid 4243", "hint: rm /tmp/locald.sock"}},
		"a second name for a file of theirs": {func(h *house) func() {
			h.put("/tmp/home/precious", "precious")
			if err := os.Link("/tmp/home/precious", "/tmp/locald.log"); err != nil {
				h.t.Fatal(err)
			}
			return func() {
				if text, err := os.ReadFile("/tmp/home/precious"); err != nil || string(text) != "precious" {
					h.t.Errorf("a file of the resident's has become %q, %v", text, err)
				}
			}
		}, []string{"/tmp/locald.log has a second name", "hint: rm /tmp/locald.log"}},
	} {
		t.Run(name, func(t *testing.T) {
			promise(t, "P16", "P17", "S1", "S3")
			h := newHouse(t)
			after := c.before(h)
			for _, args := range [][]string{{"up"}, {"up", "--json"}, {"logs"}, {"env", "web"}} {
				r := h.run(args...)
				if r.code != 125 {
					t.Errorf("locald %v: %v", args, r)
				}
				for _, words := range c.says {
					if args[len(args)-1] != "--json" && !strings.Contains(r.stderr, words) {
						t.Errorf("locald %v does not say %q: %v", args, words, r)
					}
				}
			}
			after()
			if _, err := os.Lstat(filepath.Join(h.dir, "web.notes")); err == nil {
				t.Error("the service was started")
			}
			// What was to be typed helps.
			h.more = nil
			for _, path := range []string{"/tmp/locald.sock", "/tmp/locald.log"} {
				_ = os.Remove(path)
			}
			h.works()
			tried(t, 1, 0)
		})
	}
}
