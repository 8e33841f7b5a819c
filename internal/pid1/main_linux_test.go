package pid1

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limit is what nothing here may take, on the slowest machine.
const limit = 2 * time.Minute

// TestMain makes the test binary the outer and the inner process of containers,
// and programs in them.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "container":
			// The inner process has no arguments and no environment, so it gets the same
			// network as the outer whatever that is.
			os.Exit(Main(os.Args[2:], networkOf(os.Args[2:])))
		case "supported":
			os.Exit(toldError(Supported(os.Args[2])))
		case "remove":
			os.Exit(toldError(Remove(os.Args[2])))
		case "own":
			os.Exit(toldError(inRange(func(r *Range) error {
				return r.Own(os.Args[2], []Owner{{Name: []byte("open"), UID: 7, GID: 8, Mode: 0o4711}, {Name: []byte("closed/f"), UID: 9, GID: 0, Mode: 0o600}, {Name: []byte("closed"), UID: 9, GID: 9, Mode: 0o700}, {Name: []byte("link"), UID: 7}, {Name: []byte("nope"), UID: 7}})
			})))
		case "calls":
			os.Exit(makeCalls())
		case "signals":
			os.Exit(printSignals())
		case "ask":
			os.Exit(ask())
		}
	}
	// Tests wait for processes most of the time, and with the race detector each of
	// those sleeps for a second before it ends.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		os.Exit(toldError(err))
	}
	os.Exit(withCopy(m.Run))
}

// copyOfTest is a copy of the test binary where everybody can execute it. Where the
// repository is, others may not be allowed to go; and one that is written while
// others fork is busy, so it is made before anything else.
var copyOfTest string

func withCopy(run func() int) int {
	dir, err := os.MkdirTemp("", "pid1-program-")
	if err != nil {
		return toldError(err)
	}
	defer os.RemoveAll(dir)
	copyOfTest = filepath.Join(dir, "self")
	self, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(copyOfTest, self, 0o755)); err != nil {
		return toldError(err)
	}
	return run()
}

func toldError(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	var e *Error
	if errors.As(err, &e) {
		fmt.Fprintf(os.Stderr, "hint: %s\n", e.Hint)
	}
	return 1
}

func inRange(do func(*Range) error) error {
	r, err := FindRange()
	if err != nil {
		return err
	}
	return do(r)
}

// networkOf is none unless the outer process is told of one. The inner process
// asks it only if the outer did.
func networkOf(args []string) Network {
	var s Spec
	if len(args) == 0 || json.Unmarshal([]byte(args[0]), &s) != nil || s.Network != nil {
		return echoes{}
	}
	return nil
}

// echoes is a network in which somebody at 127.0.0.1:9 answers, and says what it
// was configured with.
type echoes struct{}

func (echoes) Attach() (*os.File, error) {
	if err := loopbackUp(); err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.File()
}

func (echoes) Open(config json.RawMessage) (Gateway, error) {
	var g echo
	if err := json.Unmarshal(config, &g); err != nil {
		return nil, err
	}
	if g.Wait != "" {
		if _, err := os.ReadFile(g.Wait); err != nil {
			return nil, err
		}
	}
	if g.Taken {
		return nil, fmt.Errorf("127.0.0.1:5432: %w", unix.EADDRINUSE)
	}
	return g, nil
}

// echo is its gateway.
type echo struct {
	Say   string // what is answered
	Fail  string // what it ends with when it is asked
	Wait  string // a named pipe to read before it is open
	Taken bool   // it does not get its port
}

func (echo) Close() error { return nil }

func (g echo) Serve(ctx context.Context, link *os.File) error {
	conn, err := net.FilePacketConn(link)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	packet := make([]byte, 100)
	for {
		n, from, err := conn.ReadFrom(packet)
		if err != nil {
			return err
		}
		if g.Fail != "" {
			return errors.New(g.Fail)
		}
		if _, err := conn.WriteTo([]byte(string(packet[:n])+", "+g.Say), from); err != nil {
			return err
		}
	}
}

// printSignals is a program that says which signals it gets, until SIGQUIT.
func printSignals() int {
	c := make(chan os.Signal, 16)
	signal.Notify(c)
	fmt.Println("ready")
	for s := range c {
		sig, ok := s.(syscall.Signal)
		if !ok || sig == unix.SIGURG {
			continue
		}
		fmt.Println(int(sig))
		if sig == unix.SIGQUIT {
			break
		}
	}
	return 9
}

// ask is a program that talks to echoes.
func ask() int {
	conn, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		return toldError(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		return toldError(err)
	}
	answer := make([]byte, 100)
	n, err := conn.Read(answer)
	fmt.Printf("%s\n", answer[:n])
	return toldError(err)
}

// who is somebody who has containers.
type who struct {
	name    string
	user    int // whose directories they are
	rootful bool
	users   *Range   // of an ordinary user who has more than one
	command []string // before a command line, to run it as them
}

var users sync.Map // test processes share a machine, tests a process: each has its own user

// spareUser is a user ID that no other test uses at the same time.
func spareUser() int {
	for n := 100000 + os.Getpid(); ; n += 1 << 22 {
		if _, taken := users.LoadOrStore(n, true); !taken {
			return n
		}
	}
}

// everybody runs a test as root and as an ordinary user, as far as it can be
// either.
func everybody(t *testing.T, test func(*testing.T, who)) {
	t.Helper()
	t.Parallel()
	run := func(w who) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
	if os.Geteuid() != 0 {
		run(who{name: "user", user: os.Geteuid()})
		return
	}
	run(who{name: "root", rootful: true})
	if w, ok := ordinary(t); ok {
		run(w)
	}
	if w, ok := ranged(t); ok {
		run(w)
	}
}

// tester is a user whom hack/test-deps makes, with a range of users.
const tester = "locald-test"

// ranged is an ordinary user who has a range.
func ranged(t testing.TB) (who, bool) {
	t.Helper()
	w, ok := ordinary(t)
	u, err := user.Lookup(tester)
	if !ok || err != nil {
		t.Log("nothing is tested with a range of users: ", err)
		return who{}, false
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	w.name, w.user, w.command = "range", uid, []string{w.command[0], "--reuid=" + u.Uid, "--regid=" + u.Gid, "--clear-groups"}
	if w.users, err = findRange(uid, gid); err != nil {
		t.Log("nothing is tested with a range of users: ", err)
		return who{}, false
	}
	return w, true
}

// ordinary is an ordinary user.
func ordinary(t testing.TB) (who, bool) {
	t.Helper()
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Log("setpriv is not in PATH: nothing is tested as an ordinary user")
		return who{}, false
	}
	n := spareUser()
	id := strconv.Itoa(n)
	return who{name: "user", user: n, command: []string{setpriv, "--reuid=" + id, "--regid=" + id, "--clear-groups"}}, true
}

// place makes a directory of theirs with a layer and the
// container's directory in it.
func (w who) place(t testing.TB) string {
	t.Helper()
	base, err := os.MkdirTemp("", "pid1-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Remove(base); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"layer", "layer/etc", "layer/tmp", "layer/srv", "layer/root"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(base, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(base, "layer/tmp"), 0o1777); err != nil {
		t.Fatal(err)
	}
	w.own(t, base)
	return base
}

// own gives them a tree.
func (w who) own(t testing.TB, base string) {
	t.Helper()
	if w.rootful || os.Geteuid() != 0 {
		return
	}
	err := filepath.WalkDir(base, func(name string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(name, w.user, w.user))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// box is a container of a test.
type box struct {
	t      testing.TB
	who    who
	base   string
	dir    string
	spec   Spec
	env    []string
	before []string // command line before the outer process's

	cmd      *exec.Cmd
	stdin    *os.File
	stdout   *os.File
	stderr   bytes.Buffer
	exited   chan struct{}
	exitCode int
}

// newBox is a container that runs a script.
func (w who) newBox(t testing.TB, script string) *box {
	t.Helper()
	base := w.place(t)
	b := &box{t: t, who: w, base: base, dir: filepath.Join(base, "c"), exited: make(chan struct{}), env: []string{"GREETING=hello"}}
	b.spec = Spec{
		Dir: b.dir, Layers: []string{filepath.Join(base, "layer"), "/usr"}, UserXattr: !w.rootful, Range: w.users,
		Args: []string{"sh", "-c", script}, Hostname: "web",
		Mounts: []Mount{{Source: copyOfTest, Target: "/self", ReadOnly: true}},
	}
	return b
}

// start starts it.
func (b *box) start() *box {
	b.t.Helper()
	argument, err := b.spec.Argument()
	if err != nil {
		b.t.Fatal(err)
	}
	line := append(append(append([]string{}, b.before...), b.who.command...), copyOfTest, "container", argument)
	b.cmd = exec.Command(line[0], line[1:]...)
	b.cmd.Env = b.env
	b.cmd.Dir = "/"
	b.cmd.Stderr = &b.stderr
	out, far, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	in, near, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.cmd.Stdin, b.cmd.Stdout, b.stdin, b.stdout = in, far, near, out
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	in.Close()
	far.Close()
	go func() {
		defer close(b.exited)
		_ = b.cmd.Wait()
		b.exitCode = b.cmd.ProcessState.ExitCode()
	}()
	b.t.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		<-b.exited
		// Nobody in the container has its end of the pipe any more.
		if _, err := io.Copy(io.Discard, out); err != nil && !errors.Is(err, os.ErrClosed) {
			b.t.Error(err)
		}
		near.Close()
		out.Close()
	})
	return b
}

// ready waits until the main program runs.
func (b *box) ready() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	go func() {
		select {
		case <-b.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := Ready(ctx, b.dir); err != nil {
		b.t.Fatalf("%v; it says %s", err, b.stderr.String())
	}
}

// output waits for its end.
func (b *box) output() (string, int) {
	b.t.Helper()
	b.stdin.Close()
	out, err := io.ReadAll(b.stdout)
	if err != nil {
		b.t.Fatal(err)
	}
	<-b.exited
	return string(out), b.exitCode
}

// line reads one line.
func (b *box) line() string {
	b.t.Helper()
	var text []byte
	one := make([]byte, 1)
	for {
		if _, err := b.stdout.Read(one); err != nil {
			b.t.Fatalf("after %q: %v; it says %s", text, err, b.stderr.String())
		}
		if one[0] == '\n' {
			return string(text)
		}
		text = append(text, one[0])
	}
}

// want runs a script in a container and compares.
func (b *box) want(out string, code int) {
	b.t.Helper()
	got, status := b.start().output()
	if got != out || status != code {
		b.t.Errorf("got %q and status %d, want %q and %d; it says %s", got, status, out, code, b.stderr.String())
	}
}

// exec runs a command in it to its end.
func (b *box) exec(c Command) (string, int) {
	b.t.Helper()
	near, far, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer near.Close()
	c.Stdout, c.Stderr = far, far
	r, err := Exec(b.t.(*testing.T).Context(), b.dir, c)
	far.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := io.ReadAll(near)
	if err != nil {
		b.t.Fatal(err)
	}
	code, err := r.Wait()
	if err != nil {
		b.t.Fatal(err)
	}
	return string(out), code
}

func (b *box) signal(sig syscall.Signal) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(sig); err != nil {
		b.t.Fatal(err)
	}
}

// write writes a file and its directories.
func (b *box) write(name, content string) {
	b.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

// program makes /srv/it of the layer an executable file.
func (b *box) program(content string) {
	b.t.Helper()
	name := filepath.Join(b.base, "layer/srv/it")
	b.write(name, content)
	if err := os.Chmod(name, 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.who.own(b.t, b.base)
}

// waitForNetwork makes the outer process read a pipe before it starts the inner
// one.
func (b *box) waitForNetwork() (pipe string) {
	b.t.Helper()
	pipe = filepath.Join(b.base, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.who.own(b.t, b.base)
	b.spec.Network = json.RawMessage(fmt.Sprintf(`{"wait":%q}`, pipe))
	return pipe
}

// makeCalls makes system calls and says what comes of it.
func makeCalls() int {
	say := func(name string, errno unix.Errno) {
		if errno == 0 {
			fmt.Printf("%s: done\n", name)
		} else {
			fmt.Printf("%s: %s\n", name, unix.ErrnoName(errno))
		}
	}
	call := func(name string, number uintptr, args ...uintptr) {
		args = append(args, 0, 0, 0)
		_, _, errno := unix.RawSyscall(number, args[0], args[1], args[2])
		say(name, errno)
	}
	const clone3, keyctl, bpf, unheard = 435, unix.SYS_KEYCTL, unix.SYS_BPF, 4000
	call("unshare user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	call("unshare mount", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
	call("clone with a namespace", unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD))
	call("clone3", clone3)
	call("socket unix", unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM)
	call("socket vsock", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM)
	call("socket alg", unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET)
	call("personality read", unix.SYS_PERSONALITY, 0xffffffff)
	call("personality odd", unix.SYS_PERSONALITY, 0x0400000)
	call("keyctl", keyctl)
	call("bpf", bpf)
	call("unheard of", unheard)
	say("mount", errnoOf(unix.Mount("none", "/tmp", "tmpfs", 0, "")))
	return 0
}

func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	errors.As(err, &errno)
	return errno
}

// lines joins lines.
func lines(all ...string) string { return strings.Join(all, "\n") + "\n" }
