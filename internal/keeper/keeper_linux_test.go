package keeper

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/logs"
)

// The test binary is the keeper too, and a daemon that can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "keeper":
			os.Exit(Main(os.Args[2:]))
		case "bombed":
			os.Exit(withBomb(os.Args[2:]))
		case "init":
			os.Exit(initProcess(os.Args[2:]))
		case "daemon":
			os.Exit(daemon(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// limit bounds each wait, so that what hangs fails with a name.
const limit = 30 * time.Second

var hostile = sync.OnceValues(func() (string, error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	program := filepath.Join(filepath.Dir(self), "hostile") // go test removes this directory
	out, err := exec.Command(cc, "-O1", "-o", program, "testdata/hostile.c").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

func hostileProgram(t *testing.T) string {
	t.Helper()
	program, err := hostile()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("no C compiler: cc is not in PATH")
	}
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func uniqueOwner(t *testing.T) string {
	return fmt.Sprintf("test-%x-%s", time.Now().UnixNano(), strings.Map(func(r rune) rune {
		if r == ',' || r == '/' {
			return '-'
		}
		return r
	}, t.Name()))
}

func open(t *testing.T) *Keeper {
	t.Helper()
	k, err := Start(t.Context(), Options{Dir: t.TempDir(), Owner: uniqueOwner(t), Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return k
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	t.Cleanup(cancel)
	return ctx
}

// env is what a service needs to find programs, and no more.
var env = []string{"PATH=" + os.Getenv("PATH")}

func shell(t *testing.T, script string) Run {
	return Run{ID: "p/web#1", Number: 1, Argv: []string{"sh", "-c", script}, Dir: "/", Env: env, Log: t.TempDir(), Grace: time.Second}
}

func start(t *testing.T, k *Keeper, r Run) *Child {
	t.Helper()
	c, err := k.Run(bounded(t), r)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return c
}

func await(t *testing.T, c *Child) Exit {
	t.Helper()
	select {
	case <-c.Done():
	case <-c.keeper.Lost():
		t.Fatal("the keeper was lost")
	case <-time.After(limit):
		t.Fatal("the run is not gone")
	}
	return c.Exit()
}

func stopped(t *testing.T, c *Child, grace time.Duration) {
	t.Helper()
	if err := c.Stop(bounded(t), grace); err != nil {
		t.Fatalf("Stop: %v", err)
	}
}

// lines returns what a store holds, with the stream before each line.
func lines(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := logs.OpenReader(dir).Read(t.Context(), logs.Query{Tail: -1}, func(l logs.Line) error {
		all = append(all, fmt.Sprintf("%s %s", l.Stream, l.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// witness is a pipe whose write end the processes of a run inherit. When it
// ends, none of them is left, whatever they did to their marks.
type witness struct {
	read, write *os.File
	lines       *bufio.Reader
}

func newWitness(t *testing.T) *witness {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return &witness{r, w, bufio.NewReader(r)}
}

// saw waits until a process has written a line.
func (w *witness) saw(t *testing.T) string {
	t.Helper()
	w.write.Close()
	_ = w.read.SetReadDeadline(time.Now().Add(limit))
	line, err := w.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("no line from the service: %v", err)
	}
	return strings.TrimSpace(line)
}

// gone fails unless nobody holds the pipe any more.
func (w *witness) gone(t *testing.T) {
	t.Helper()
	w.write.Close()
	_ = w.read.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := io.Copy(io.Discard, w.lines); err != nil {
		t.Errorf("a process of the run is left: %v", err)
	}
}

func TestExit(t *testing.T) {
	t.Parallel()
	k := open(t)
	for _, test := range []struct {
		script string
		code   int
		signal string
	}{
		{"exit 0", 0, ""},
		{"exit 7", 7, ""},
		{"kill -KILL $$", 137, "SIGKILL"},
		{"kill -SEGV $$", 139, "SIGSEGV"},
	} {
		exit := await(t, start(t, k, shell(t, test.script)))
		if exit.Code != test.code || exit.Signal != test.signal || exit.Forced || exit.Left != 0 {
			t.Errorf("%s: %+v", test.script, exit)
		}
	}
}

func TestCannotStart(t *testing.T) {
	t.Parallel()
	k := open(t)
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("nodemon", "#!/bin/sh\n", 0o755)
	plain := write("plain", "#!/bin/sh\n", 0o644)
	crlf := write("crlf", "#!/bin/sh\r\n", 0o755)
	interpreted := write("interpreted", "#!/no/such/interpreter -x\n", 0o755)
	headless := write("headless", "echo hello\n", 0o755)
	path := []string{"PATH=" + dir + ":/usr/bin:/bin"}
	for _, test := range []struct {
		argv, env []string
		dir       string
		code      string
		text      string
		hint      string
	}{
		{argv: []string{"nodemno"}, env: path, code: "command_missing", text: "command nodemno: not found in PATH", hint: "did you mean nodemon?"},
		{argv: []string{"sh"}, code: "command_missing", text: "command sh: not found, PATH is empty"},
		{argv: []string{"./nodemn"}, code: "command_missing", text: "command " + dir + "/nodemn: no such file or directory", hint: "did you mean nodemon?"},
		{argv: []string{plain}, code: "permission_denied", text: "command " + plain + ": permission denied: it is not executable", hint: "chmod +x " + plain},
		{argv: []string{crlf}, code: "command_missing", text: "command " + crlf + `: no such file or directory: its interpreter '/bin/sh\r' is missing`, hint: `sed -i 's/\r$//' ` + crlf},
		{argv: []string{interpreted}, code: "command_missing", text: "command " + interpreted + ": no such file or directory: its interpreter /no/such/interpreter is missing"},
		{argv: []string{headless}, code: "command_missing", text: "command " + headless + ": exec format error", hint: `put "#!/bin/sh" into its first line`},
		{argv: []string{dir}, code: "command_missing", text: "command " + dir + ": is a directory"},
		{argv: []string{"/bin/sh"}, dir: dir + "/web", code: "workdir_missing", text: "directory " + dir + "/web: no such file or directory", hint: "mkdir -p " + dir + "/web"},
		{argv: []string{"sh"}, env: path, dir: plain, code: "workdir_missing", text: "directory " + plain + ": not a directory"},
		{argv: []string{"sh", "-c", strings.Repeat("x", 1<<20)}, env: path, code: "config_invalid", text: "command /usr/bin/sh: argument list and environment too long"},
		{argv: nil, code: "config_invalid", text: "the command is empty"},
	} {
		r := Run{ID: "p/web#1", Number: 1, Argv: test.argv, Env: test.env, Dir: dir, Log: t.TempDir()}
		if test.dir != "" {
			r.Dir = test.dir
		}
		_, err := k.Run(bounded(t), r)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%v: %v", test.argv, err)
			continue
		}
		if e.Code != test.code || e.Message != test.text || e.Hint != test.hint {
			t.Errorf("%.40v: %s %q hint %q; want %s %q hint %q", test.argv, e.Code, e.Message, e.Hint, test.code, test.text, test.hint)
		}
	}
}

func TestRelativeCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "serve"), []byte("#!/bin/sh\nexit 5\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	k := open(t)
	for _, r := range []Run{
		{ID: "p/a#1", Argv: []string{"./bin/serve"}, Dir: dir, Env: env},
		{ID: "p/b#1", Argv: []string{"serve"}, Dir: dir, Env: append([]string{"PATH=bin"}, env...)[:1]},
	} {
		if exit := await(t, start(t, k, r)); exit.Code != 5 {
			t.Errorf("%v: %+v", r.Argv, exit)
		}
	}
}

func TestChildIsClean(t *testing.T) {
	t.Parallel()
	k := open(t)
	// A pipeline or a redirection would be the shell's own for a moment.
	r := shell(t, `(exec >"$FDS"; exec ls -l /proc/$$/fd); sed -n 's/.* \([0-9]*\) -> \([^:]*\).*/fd \1 \2/p' "$FDS"; grep -E 'Sig(Ign|Blk)' /proc/self/status; env | grep LOCALD; ps -o pgid= -p $$ | grep -q "^ *$$\$" && echo leads`)
	r.Env = append(r.Env, "LOCALD_MARK=forged/p/other#9", "FDS="+filepath.Join(t.TempDir(), "fds"))
	await(t, start(t, k, r))
	got := strings.Join(lines(t, r.Log), "\n")
	want := strings.Join([]string{
		"stdout fd 0 /dev/null", "stdout fd 1 pipe", "stdout fd 2 pipe",
		"stdout SigBlk:\t0000000000000000", "stdout SigIgn:\t0000000000000000",
		"stdout LOCALD_MARK=" + k.Owner() + "/p/web#1", "stdout leads",
	}, "\n")
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// A keeper that was started with signals ignored or blocked does not hand that
// on.
func TestInheritedDispositions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k, err := Start(t.Context(), Options{
		Dir: dir, Owner: uniqueOwner(t), Log: os.Stderr,
		Command: []string{"sh", "-c", `trap '' HUP INT QUIT TERM PIPE TSTP USR1 WINCH; exec "$0" keeper`, "/proc/" + strconv.Itoa(os.Getpid()) + "/exe"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	r := shell(t, `grep SigIgn /proc/self/status`)
	await(t, start(t, k, r))
	if got := lines(t, r.Log); len(got) != 1 || got[0] != "stdout SigIgn:\t0000000000000000" {
		t.Errorf("got %q", got)
	}
}

func TestOutputIsComplete(t *testing.T) {
	t.Parallel()
	k := open(t)
	r := shell(t, `i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo problem >&2; printf tail`)
	await(t, start(t, k, r))
	var out []string
	seen := map[string]bool{}
	for _, l := range lines(t, r.Log) {
		seen[l] = true
		if strings.HasPrefix(l, "stdout line") {
			out = append(out, l)
		}
	}
	if len(out) != 2000 || out[0] != "stdout line 0" || out[1999] != "stdout line 1999" || !seen["stderr problem"] || !seen["stdout tail"] {
		t.Errorf("%d lines, problem %v, tail %v", len(out), seen["stderr problem"], seen["stdout tail"])
	}
}

// Many small writes of a busy service are stored together: the headers of blocks
// are next to nothing.
func TestSmallWritesAreStoredTogether(t *testing.T) {
	t.Parallel()
	k := open(t)
	r := shell(t, `i=0; while [ $i -lt 20000 ]; do echo; i=$((i+1)); done`)
	await(t, start(t, k, r))
	if got := len(lines(t, r.Log)); got != 20000 {
		t.Fatalf("%d lines", got)
	}
	stored := 0
	segments, err := filepath.Glob(filepath.Join(r.Log, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, segment := range segments {
		info, err := os.Stat(segment)
		if err != nil {
			t.Fatal(err)
		}
		stored += int(info.Size())
	}
	if stored > 2*20000 {
		t.Errorf("%d bytes are stored for 20000", stored)
	}
}

func TestEndlessLine(t *testing.T) {
	t.Parallel()
	k := open(t)
	r := shell(t, `head -c 100000000 /dev/zero | tr '\0' a`)
	await(t, start(t, k, r))
	total := 0
	err := logs.OpenReader(r.Log).Read(t.Context(), logs.Query{Tail: -1}, func(l logs.Line) error {
		total += len(l.Data)
		return nil
	})
	if err != nil || total != 100000000 {
		t.Errorf("stored %d bytes, %v", total, err)
	}
	if peak := memory(t, k.PID(), "VmHWM"); peak > 40<<10 {
		t.Errorf("the keeper needed %d KiB", peak)
	}
}

// memory reads a line of /proc/PID/status in KiB.
func memory(t testing.TB, pid int, key string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s of process %d", key, pid)
	return 0
}

func TestNotesAndStreams(t *testing.T) {
	t.Parallel()
	k := open(t)
	dir := t.TempDir()
	k.Note(dir, 3, "created")
	stdout, stderr, err := k.Stream(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(stdout, "from the container")
	stdout.Close()
	fmt.Fprint(stderr, "its complaint")
	stderr.Close()
	if err := k.Flush(bounded(t), dir, 3); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, l := range lines(t, dir) {
		got[l] = true
	}
	if !got["event created"] || !got["stdout from the container"] || !got["stderr its complaint"] || len(got) != 3 {
		t.Errorf("got %v", got)
	}
}

func TestStopIsGraceful(t *testing.T) {
	t.Parallel()
	k := open(t)
	w := newWitness(t)
	r := shell(t, `trap 'exit 3' USR1; echo up; while :; do sleep 0.02; done`)
	r.Stdout, r.Stderr, r.StopSignal = w.write, w.write, "SIGUSR1"
	c := start(t, k, r)
	w.saw(t)
	for range 2 {
		stopped(t, c, limit)
	}
	if exit := c.Exit(); exit.Code != 3 || exit.Forced {
		t.Errorf("%+v", exit)
	}
	w.gone(t)
}

// A shell that ends at once leaves the server that it started the whole grace.
func TestStopLeavesGroupItsGrace(t *testing.T) {
	t.Parallel()
	k := open(t)
	w := newWitness(t)
	r := shell(t, `exec 2>/dev/null; sh -c 'trap "sleep 1.5; echo saved; exit 0" TERM; echo up; while :; do sleep 0.02; done' & wait`)
	r.Stdout, r.Stderr = w.write, w.write
	c := start(t, k, r)
	w.saw(t)
	stopped(t, c, limit)
	if got := w.saw(t); got != "saved" {
		t.Errorf("got %q", got)
	}
	w.gone(t)
}

func TestShorterStop(t *testing.T) {
	t.Parallel()
	k := open(t)
	w := newWitness(t)
	c := start(t, k, Run{ID: "p/web#1", Argv: []string{hostileProgram(t), "ignoreterm"}, Dir: "/", Env: env, Stdout: w.write, Stderr: w.write})
	w.saw(t)
	patient := make(chan error, 1)
	ctx := bounded(t)
	go func() { patient <- c.Stop(ctx, time.Hour) }()
	stopped(t, c, 10*time.Millisecond)
	if err := <-patient; err != nil {
		t.Errorf("the first Stop: %v", err)
	}
	if exit := c.Exit(); !exit.Forced || exit.Signal != "SIGKILL" {
		t.Errorf("%+v", exit)
	}
	w.gone(t)
}

func TestCancelledRun(t *testing.T) {
	t.Parallel()
	k := open(t)
	w := newWitness(t)
	for i := range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		c, err := k.Run(ctx, Run{ID: fmt.Sprintf("p/web#%d", i), Argv: []string{"sleep", "60"}, Dir: "/", Env: env, Stdout: w.write, Stderr: w.write})
		cancel()
		if err == nil {
			stopped(t, c, 0)
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run: %v", err)
		}
	}
	w.gone(t)
}

// kinds are the ways out that the hostile program tries.
var kinds = []string{
	"plain", "doublefork", "sibling", "setsid", "daemon", "daemon-exit", "clearenv", "title", "nodump", "ignoreterm", "onterm",
	"stopped", "holdout", "subreaper", "storm", "hop50", "hop1000", "hop", "unmarked",
}

func TestHostileStop(t *testing.T) {
	program := hostileProgram(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			k := open(t)
			// An innocent neighbour must live on.
			neighbour := start(t, k, Run{ID: "p/other#1", Argv: []string{"sleep", "60"}, Dir: "/", Env: env})
			w := newWitness(t)
			c := start(t, k, Run{ID: "p/web#1", Argv: []string{program, kind}, Dir: "/", Env: env, Stdout: w.write, Stderr: w.write, Grace: time.Second})
			w.saw(t)
			began := time.Now()
			stopped(t, c, 200*time.Millisecond)
			t.Logf("stopped in %v: %v", time.Since(began).Round(100*time.Microsecond), c.Exit())
			if kind != "unmarked" {
				w.gone(t)
			}
			select {
			case <-neighbour.Done():
				t.Errorf("the neighbour ended: %+v", neighbour.Exit())
			default:
			}
			// What carries no mark may be the neighbour's, and ends with it.
			stopped(t, neighbour, 0)
			w.gone(t)
		})
	}
}

// A child that a main process clones as its own sibling is the run's, and is
// found while the keeper and other runs go on, even without control groups.
func TestSibling(t *testing.T) {
	t.Setenv(Groups, "off")
	k := open(t)
	for range 4 { // from several threads of the keeper
		start(t, k, Run{ID: "p/other#1", Argv: []string{"sleep", "60"}, Dir: "/", Env: env})
	}
	w := newWitness(t)
	c := start(t, k, Run{ID: "p/web#1", Argv: []string{hostileProgram(t), "sibling"}, Dir: "/", Env: env, Stdout: w.write, Stderr: w.write})
	w.saw(t)
	if pids := c.PIDs(); len(pids) != 2 {
		t.Errorf("the run has the processes %v; want two", pids)
	}
	stopped(t, c, 200*time.Millisecond)
	w.gone(t)
}

// initProcess starts a program, says its PID, takes in whoever loses its
// parent, and says who has ended. It ends with its standard input.
func initProcess(argv []string) int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2, 3}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = syscall.Close(3)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("started", pid)
	for {
		ended, err := syscall.Wait4(-1, nil, 0, nil)
		if err == syscall.ECHILD {
			_, _ = io.Copy(io.Discard, os.Stdin)
			return 0
		}
		if err == nil {
			fmt.Println("ended", ended)
		}
	}
}

// daemon is a client that starts the hostile program, says so, and when the
// keeper is killed clears what is left and starts another.
func daemon(args []string) int {
	dir, owner, program, kind := args[0], args[1], args[2], args[3]
	witness := os.NewFile(3, "witness")
	unix.CloseOnExec(3)
	options := Options{Dir: dir, Owner: owner, Log: os.Stderr}
	k, err := Start(context.Background(), options)
	if err == nil {
		_, err = k.Run(context.Background(), Run{ID: "p/web#1", Number: 1, Argv: []string{program, kind}, Dir: "/", Env: env, Stdout: witness, Stderr: witness, Grace: 300 * time.Millisecond})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	witness.Close()
	fmt.Println("keeper", k.PID())
	own := exec.Command("cat") // a child that is no orphan, and ends with us
	if _, err = own.StdinPipe(); err == nil {
		err = own.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-k.Lost()
	if err := k.Clear(context.Background(), 100*time.Millisecond); err != nil {
		fmt.Println("left", err)
		return 1
	}
	fmt.Println("cleared", len(ourChildren())-1)
	if err := own.Process.Kill(); err != nil {
		fmt.Fprintln(os.Stderr, "the child that is no orphan:", err)
		return 1
	}
	_ = own.Wait()
	if k, err = Start(context.Background(), options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("keeper", k.PID())
	_ = k.Close()
	return 0
}

// crashing is a daemon with a hostile service, whose parent takes in what loses
// its own.
type crashing struct {
	*witness
	said           *bufio.Reader
	daemon, keeper int
	dir, owner     string
}

// hear waits until the daemon or its parent says a word, and returns the number
// behind it.
func (c *crashing) hear(t *testing.T, word string) (n int) {
	t.Helper()
	for {
		line, err := c.said.ReadString('\n')
		if err != nil {
			t.Fatalf("%q was not said: %v", word, err)
		}
		if rest, ok := strings.CutPrefix(line, word+" "); ok {
			if n, err = strconv.Atoi(strings.TrimSpace(rest)); err != nil {
				t.Fatalf("the daemon says %q", line)
			}
			return n
		}
		if strings.HasPrefix(line, "left ") {
			t.Fatalf("the daemon says %q", line)
		}
	}
}

// crash starts a daemon with a hostile service, as an ordinary user where that
// is possible, without control groups.
func crash(t *testing.T, kind string) *crashing {
	t.Helper()
	return crashIn(t, kind, "")
}

// crashIn is crash in a control group that was delegated to the user.
func crashIn(t *testing.T, kind, group string) *crashing {
	t.Helper()
	c := &crashing{witness: newWitness(t), owner: uniqueOwner(t)}
	var self, program string
	user := spareUser()
	c.dir, self, program = placeFor(t, user)
	command := []string{"/proc/self/exe", "init", self, "daemon", c.dir, c.owner, program, kind}
	if setpriv, err := exec.LookPath("setpriv"); err == nil && os.Geteuid() == 0 {
		command = append([]string{setpriv, fmt.Sprintf("--reuid=%d", user), fmt.Sprintf("--regid=%d", user), "--clear-groups", self}, command[1:]...)
	}
	cmd := exec.Command(command[0], command[1:]...)
	if group != "" {
		delegate(t, group, user)
		cmd = exec.Command("sh", append([]string{"-c", `echo $$ > "$0"/cgroup.procs; exec "$@"`, group}, command...)...)
	} else {
		cmd.Env = append(os.Environ(), Groups+"=off")
	}
	cmd.ExtraFiles = []*os.File{c.write}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c.said = bufio.NewReader(out)
	c.daemon = c.hear(t, "started")
	c.keeper = c.hear(t, "keeper")
	c.saw(t)
	return c
}

// kill ends the daemon, and waits until that is so.
func (c *crashing) kill(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(c.daemon, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for c.hear(t, "ended") != c.daemon {
	}
}

func TestHostileDaemonKilled(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			t.Attr("promise", "P4 F19")
			c := crash(t, kind)
			c.kill(t)
			if err := Wait(bounded(t), c.dir); err != nil {
				t.Fatal(err)
			}
			c.gone(t)
		})
	}
}

// When the keeper alone is killed the daemon has what was below it.
func TestHostileKeeperKilled(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			t.Attr("promise", "P1 P4 P5 F21")
			c := crash(t, kind)
			began := time.Now()
			if err := syscall.Kill(c.keeper, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if left := c.hear(t, "cleared"); left != 0 {
				t.Errorf("the daemon has %d children left", left)
			}
			t.Logf("cleared in %v", time.Since(began).Round(time.Millisecond))
			c.gone(t)
			c.hear(t, "keeper")
		})
	}
}

func TestHostileBothKilled(t *testing.T) {
	for _, kind := range kinds {
		if kind == "unmarked" {
			continue // nothing is left to know it by
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			t.Attr("promise", "P3 P4 F22")
			c := crash(t, kind)
			canary := exec.Command("sleep", "60")
			if err := canary.Start(); err != nil {
				t.Fatal(err)
			}
			// The keeper is the stopped daemon's child, so its number stays its own.
			_ = syscall.Kill(c.daemon, syscall.SIGSTOP)
			_ = syscall.Kill(c.keeper, syscall.SIGKILL)
			c.kill(t)
			if err := Wait(bounded(t), c.dir); err != nil {
				t.Fatal(err)
			}
			found, err := Find(t.Context(), c.dir, c.owner)
			if err != nil {
				t.Fatal(err)
			}
			var marks []Mark
			for _, f := range found {
				marks = append(marks, f.Mark)
			}
			began := time.Now()
			if err := End(bounded(t), c.dir, marks, 100*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			t.Logf("swept %d runs in %v", len(found), time.Since(began).Round(time.Millisecond))
			c.gone(t)
			if found, err := Find(t.Context(), c.dir, c.owner); err != nil || len(found) != 0 {
				t.Errorf("Find = %v, %v; want nothing", found, err)
			}
			if err := canary.Process.Signal(syscall.SIGTERM); err != nil {
				t.Errorf("the canary: %v", err)
			}
			_ = canary.Wait()
			if status, ok := canary.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
				t.Errorf("the canary ended with %v", canary.ProcessState)
			}
		})
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	k := open(t)
	a := start(t, k, Run{ID: "p/a#1", Argv: []string{"sleep", "60"}, Dir: "/", Env: env})
	b := start(t, k, Run{ID: "p/b#4", Argv: []string{"sleep", "60"}, Dir: "/", Env: env})
	await(t, start(t, k, shell(t, "exit 0"))) // whose number the keeper does not carry on
	found, err := Find(t.Context(), "", k.Owner())
	if err != nil || len(found) != 2 {
		t.Fatalf("Find = %+v, %v; want two runs", found, err)
	}
	for _, f := range found {
		c := a
		if f.Mark.Run == "p/b#4" {
			c = b
		}
		if f.Mark != c.Mark() || len(f.PIDs) != 1 || f.PIDs[0] != c.PID() || f.Mark.Number == 0 {
			t.Errorf("found %+v; want %+v of process %d", f, c.Mark(), c.PID())
		}
	}
	if found, err := Find(t.Context(), "", k.Owner()+"x"); err != nil || len(found) != 0 {
		t.Errorf("Find of another owner = %v, %v", found, err)
	}
	for _, c := range []*Child{a, b} {
		stopped(t, c, time.Second)
	}
}

// A locald inside a service of another: all of it ends with the outer one.
func TestNested(t *testing.T) {
	t.Parallel()
	program := hostileProgram(t)
	k := open(t)
	w := newWitness(t)
	dir := t.TempDir()
	self := "/proc/" + strconv.Itoa(os.Getpid()) + "/exe"
	c := start(t, k, Run{
		ID: "p/outer#1", Dir: "/", Env: env, Stdout: w.write, Stderr: w.write,
		Argv: []string{"sh", "-c", `exec 3>&1; exec "$@"`, "sh", self, "daemon", dir, "inner-" + k.Owner(), program, "clearenv"},
	})
	w.saw(t) // the daemon's word or the service's
	w.saw(t)
	inner, err := Find(t.Context(), "", "inner-"+k.Owner())
	if err != nil || len(inner) != 1 {
		t.Fatalf("Find = %+v, %v; want the inner run", inner, err)
	}
	if n := inner[0].Mark.Number; n == 0 || n >= c.Mark().Number {
		t.Errorf("inner number %x; want one below %x", n, c.Mark().Number)
	}
	stopped(t, c, 200*time.Millisecond)
	w.gone(t)
}

func TestKeeperKilled(t *testing.T) {
	t.Parallel()
	k := open(t)
	w := newWitness(t)
	c := start(t, k, Run{ID: "p/a#1", Argv: []string{"sleep", "60"}, Dir: "/", Env: env, Stdout: w.write, Stderr: w.write})
	w.write.Close()
	if err := syscall.Kill(k.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-k.Lost()
	if err := c.Stop(bounded(t), time.Second); !errors.Is(err, ErrLost) {
		t.Errorf("Stop = %v; want ErrLost", err)
	}
	if _, err := k.Run(bounded(t), shell(t, "exit 0")); !errors.Is(err, ErrLost) {
		t.Errorf("Run = %v; want ErrLost", err)
	}
	if err := End(bounded(t), "", []Mark{c.Mark()}, time.Second); err != nil {
		t.Fatal(err)
	}
	w.gone(t)
}

func TestUnprivileged(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root: a process is unprivileged anyway")
	}
	k := open(t)
	r := shell(t, "id -u; touch file")
	r.Dir, r.Unprivileged = t.TempDir(), true
	c, err := k.Run(bounded(t), r)
	if err != nil {
		t.Skipf("no user namespaces: %v", err)
	}
	if exit := await(t, c); exit.Code != 0 {
		t.Errorf("%+v", exit)
	}
	if got := lines(t, r.Log); len(got) != 1 || got[0] != "stdout 65534" {
		t.Errorf("got %q", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(r.Dir, "file"), &st); err != nil || st.Uid != 0 {
		t.Errorf("the file belongs to %d, %v", st.Uid, err)
	}
}

// What belongs to somebody else cannot be ended; it is named, and the stop that
// comes after its end succeeds.
func TestSurvivor(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root: a program that becomes another user cannot be made")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("setpriv is not in PATH")
	}
	dir, err := os.MkdirTemp("", "survivor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, escalating := filepath.Join(dir, "keeper"), filepath.Join(dir, "hostile")
	copyProgram(t, "/proc/self/exe", self, 0o755)
	copyProgram(t, hostileProgram(t), escalating, 0o755|os.ModeSetuid)
	k, err := Start(t.Context(), Options{
		Dir: t.TempDir(), Owner: uniqueOwner(t), Log: os.Stderr,
		Command: []string{setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", self, "keeper"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	w := newWitness(t)
	c := start(t, k, Run{ID: "p/web#1", Argv: []string{escalating, "root"}, Dir: "/", Env: env, Stdout: w.write, Stderr: w.write})
	var pid int
	if n, _ := fmt.Sscanf(w.saw(t), "root %d", &pid); n != 1 {
		t.Skip("programs cannot become root from this directory")
	}
	for range 2 {
		var left *SurvivorsError
		if err := c.Stop(bounded(t), 0); !errors.As(err, &left) || len(left.Left) != 1 || left.Left[0] != (Survivor{PID: pid, Reason: "belongs to root"}) {
			t.Fatalf("Stop = %v; want process %d named", err, pid)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, c)
	stopped(t, c, 0)
	w.gone(t)
}

func copyProgram(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	syscall.ForkLock.RLock() // a child that is being forked would have it open for writing, and then it cannot be executed
	err = os.WriteFile(to, b, 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(to, mode); err != nil {
		t.Fatal(err)
	}
}

func TestBytesSurviveTheWire(t *testing.T) {
	t.Parallel()
	k := open(t)
	r := shell(t, `printf '%s|%s' "$ODD" "$1"`)
	r.Env = append(r.Env, "ODD=caf\xe9 \n\x01")
	r.Argv = append(r.Argv, "sh", "\xff\xfe")
	await(t, start(t, k, r))
	var got bytes.Buffer
	err := logs.OpenReader(r.Log).Read(t.Context(), logs.Query{Tail: -1}, func(l logs.Line) error {
		got.Write(l.Data)
		return nil
	})
	if err != nil || got.String() != "caf\xe9 \x01|\xff\xfe" {
		t.Errorf("got %q, %v", got.String(), err)
	}
}
