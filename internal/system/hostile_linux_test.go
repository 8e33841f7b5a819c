package system

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/ipc"
)

// ordinary is the user that locald is tested as: nobody who has a name or a
// capability.
const ordinary = 4242

// hostiles are the ways in which a service tries to leave something behind: as
// the table names them, and as testdata/hostile.c of the keeper does.
var hostiles = []struct{ name, kind string }{
	{"setsid", "setsid"},
	{"daemon", "daemon"},
	{"daemon-exit", "daemon-exit"},
	{"clearenv", "clearenv"},
	{"setproctitle", "title"},
	{"nodump", "nodump"},
	{"ignterm", "ignoreterm"},
	{"onterm", "onterm"},
	{"subreaper", "subreaper"},
	{"holdout", "holdout"},
	{"storm50", "storm"},
	{"comet50", "hop50"},
	{"comet1k", "hop1000"},
	{"comet0", "hop"},
	{"adversary", "unmarked"},
	{"plain", "plain"},
	{"dfork", "doublefork"},
}

// scenarios are the columns of the table.
var scenarios = []struct {
	name, says string
	happens    func(*trial) (current int)
}{
	{"A", "stop", (*trial).stopped},
	{"B", "kill -9 of the daemon", (*trial).daemonKilled},
	{"C", "kill -9 of daemon and keeper", (*trial).bothKilled},
	{"D", "kill -9 of the keeper", (*trial).keeperKilled},
	{"R", "kill -9 of the daemon while it starts the service", (*trial).killedAtRandom},
}

// escapes is the one cell that the promise leaves out: what removes every mark
// while daemon and keeper are killed in one instant.
func escapes(name, scenario string) bool { return name == "adversary" && scenario == "C" }

// TestHostile has services of every kind that try to outlive their stop, as an
// ordinary user, and counts what is left in a cgroup that locald cannot see.
func TestHostile(t *testing.T) {
	promise(t, "P1", "P3", "P4", "P5", "F01", "F02", "F03", "F04", "F05", "F06", "F07", "F09", "F10", "F11", "F13", "F14", "F19", "F20", "F21", "F22", "F24")
	needOrdinary(t)
	compiled(t, "../keeper/testdata/hostile.c")
	compiled(t, "testdata/bystander.c")
	cells := &table{times: times(1, 20)}
	t.Run("kinds", func(t *testing.T) {
		for _, h := range hostiles {
			t.Run(h.name, func(t *testing.T) {
				t.Parallel()
				attacked(t, h.name, h.kind, cells)
			})
		}
	})
	t.Logf("leaky runs/runs (processes left)\n%s", cells)
	runs, leaky := cells.total()
	tried(t, runs, leaky)
}

func attacked(t *testing.T, name, kind string, cells *table) {
	s, seen := newOrdinary(t, fmt.Sprintf(`[project]
name = "hostile"

[services.it]
type = "worker"
command = [%q, %q, "told"]
stop_timeout = "150ms"
backoff = "50ms"
max_restarts = 1000
`, compiled(t, "../keeper/testdata/hostile.c"), kind))
	path := filepath.Join(s.dir, "told")
	if err := errors.Join(unix.Mkfifo(path, 0o600), os.Chown(path, ordinary, ordinary)); err != nil {
		t.Fatal(err)
	}
	canaries := newCanaries(t, 3)
	defer canaries.end()
	tr := &trial{sandbox: s, seen: seen, told: listen(t, path), ends: kind == "daemon-exit" || kind == "holdout"}
	s.run("server", "start", "--daemonize")
	s.try("up") // it may have ended before it was seen to be up
	tr.told.up(t, 1)
	s.run("stop", "it")
	for _, scenario := range scenarios {
		t.Run(scenario.name, func(t *testing.T) {
			s.t = t
			for n := range cells.times {
				before := canaries.touched.Load()
				left := tr.attack(scenario.happens)
				cells.count(name, scenario.name, left)
				if left != nil && !escapes(name, scenario.name) {
					t.Errorf("%s, run %d: %d left: %v", scenario.says, n, len(left), left)
				}
				if canaries.touched.Load() != before {
					t.Errorf("%s, run %d: an innocent process got a signal", scenario.says, n)
				}
			}
		})
		s.t = t
	}
}

// trial is one kind of service in one sandbox.
type trial struct {
	*sandbox
	seen *observer
	told *told
	ends bool // the main process does so by itself
}

// attack starts the service, lets something happen to it and stops it. It returns
// what should not have been there: processes of an earlier run once a later one
// is up, and any process once it is stopped.
func (tr *trial) attack(happens func(*trial) int) (left []member) {
	tr.t.Helper()
	tr.told.overlaps = 0
	current := happens(tr)
	left = tr.seen.others(tr.t, current)
	if r := tr.try("stop", "it"); r.code != 0 {
		tr.t.Errorf("stop: %v", r)
	}
	tr.told.read()
	for _, m := range tr.seen.others(tr.t, 0) {
		if !slices.ContainsFunc(left, func(other member) bool { return other.pid == m.pid }) {
			left = append(left, m)
		}
	}
	if tr.told.overlaps > 0 && len(left) == 0 {
		tr.t.Error("two runs were there at once")
	}
	tr.seen.clear(tr.t)
	return left
}

// started starts the service and returns its run once it has done all that it
// does.
func (tr *trial) started() int {
	tr.t.Helper()
	after := tr.told.last
	tr.try("start", "it") // those that end at once are not always seen to be up
	return tr.told.up(tr.t, after+1)
}

// again asks for the status, as people do after a crash, and returns the run that
// came after that one, when there was to be one.
func (tr *trial) again(before int) int {
	tr.t.Helper()
	svc := tr.service()
	if tr.ends && svc.Run == before {
		return before
	}
	current := tr.told.up(tr.t, before+1)
	if tr.ends {
		return current
	}
	if svc.Run != current || svc.State != "running" { // the daemon sees it a moment later than we do
		svc = of(tr.until("running again", func(now ipc.Status) bool {
			svc := of(now, "it")
			return svc.Run == current && svc.State == "running"
		}), "it")
	}
	return svc.Run
}

// service is what "locald status" says of it, once the daemon has done all that
// it does when it starts.
func (tr *trial) service() ipc.Service {
	tr.t.Helper()
	return of(tr.look(), "it")
}

// daemon is the one that runs; where nothing is wanted there may be none.
func (tr *trial) daemon() int {
	tr.t.Helper()
	tr.run("server", "start", "--daemonize")
	text, err := os.ReadFile(tr.places().PIDFile)
	if err != nil {
		tr.t.Fatal(err)
	}
	pid := number(tr.t, strings.TrimSpace(string(text)))
	if !itself(pid) {
		tr.t.Fatalf("process %d is no daemon", pid)
	}
	return pid
}

func (tr *trial) stopped() int {
	tr.started()
	if r := tr.try("stop", "it"); r.code != 0 {
		tr.t.Errorf("stop: %v", r)
	}
	return 0
}

func (tr *trial) daemonKilled() int {
	daemon := tr.daemon()
	before := tr.started()
	kill(tr.t, daemon)
	return tr.again(before)
}

func (tr *trial) bothKilled() int {
	daemon := tr.daemon()
	before := tr.started()
	keeper := tr.seen.keeper(tr.t, daemon)
	if err := unix.Kill(daemon, unix.SIGSTOP); err != nil {
		tr.t.Fatal(err)
	}
	// The keeper stays a zombie until its parent is gone.
	if err := unix.Kill(keeper, unix.SIGKILL); err != nil {
		tr.t.Fatal(err)
	}
	kill(tr.t, daemon)
	return tr.again(before)
}

func (tr *trial) keeperKilled() int {
	daemon := tr.daemon()
	before := tr.started()
	kill(tr.t, tr.seen.keeper(tr.t, daemon))
	if tr.ends { // whether it has ended before is anybody's guess
		tr.run("stop", "it")
		return 0
	}
	return tr.again(before)
}

func (tr *trial) killedAtRandom() int {
	daemon := tr.daemon()
	before := tr.told.last
	ended := make(chan result, 1)
	go func() { ended <- tr.try("start", "it") }()
	timer := time.NewTimer(rand.N(60 * time.Millisecond))
	defer timer.Stop()
	<-timer.C
	kill(tr.t, daemon)
	<-ended // its daemon is gone
	svc := tr.service()
	switch {
	case svc.Desired != "up":
		return 0
	case svc.State == "running":
		return tr.told.up(tr.t, max(before+1, svc.Run))
	case !tr.ends:
		tr.t.Errorf("it is to be up and is %s: %s", svc.State, svc.Reason)
	}
	tr.told.read()
	return tr.told.last
}

// told is what the main processes of the service say of themselves.
type told struct {
	lines    chan string
	last     int // the newest run
	overlaps int
}

func listen(t *testing.T, path string) *told {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0) // for writing too, so that there is always somebody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r := &told{lines: make(chan string, 4096)}
	go func() {
		for lines := bufio.NewScanner(f); lines.Scan(); {
			r.lines <- lines.Text()
		}
	}()
	return r
}

// take reads a line and returns the run that it says to be up.
func (r *told) take(line string) (up int) {
	word, text, _ := strings.Cut(line, " ")
	run, _ := strconv.Atoi(text)
	r.last = max(r.last, run)
	switch word {
	case "overlap":
		r.overlaps++
	case "up":
		return run
	}
	return 0
}

// read takes in what was said.
func (r *told) read() {
	for {
		select {
		case line := <-r.lines:
			r.take(line)
		default:
			return
		}
	}
}

// up waits until this run, or a later one, is up.
func (r *told) up(t *testing.T, run int) int {
	t.Helper()
	late := time.After(limit)
	for {
		select {
		case line := <-r.lines:
			if up := r.take(line); up >= run {
				return up
			}
		case <-late:
			t.Fatalf("run %d never came up; the last was %d", run, r.last)
		}
	}
}

// table counts the outcomes by kind and scenario.
type table struct {
	times int
	mu    sync.Mutex
	cells map[[2]string]*cell
}

type cell struct{ runs, leaky, left int }

func (c *table) count(name, scenario string, left []member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cells == nil {
		c.cells = map[[2]string]*cell{}
	}
	key := [2]string{name, scenario}
	if c.cells[key] == nil {
		c.cells[key] = &cell{}
	}
	c.cells[key].runs++
	if len(left) > 0 {
		c.cells[key].leaky++
		c.cells[key].left += len(left)
	}
}

// total is how often the promise was tried and did not hold.
func (c *table) total() (runs, leaky int) {
	for key, cell := range c.cells {
		if !escapes(key[0], key[1]) {
			runs, leaky = runs+cell.runs, leaky+cell.leaky
		}
	}
	return runs, leaky
}

func (c *table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-13s", "")
	for _, scenario := range scenarios {
		fmt.Fprintf(&b, " %-10s", scenario.name)
	}
	for _, h := range hostiles {
		fmt.Fprintf(&b, "\n%-13s", h.name)
		for _, scenario := range scenarios {
			text := ""
			if cell := c.cells[[2]string{h.name, scenario.name}]; cell != nil {
				text = fmt.Sprintf("%d/%d", cell.leaky, cell.runs)
				if cell.left > 0 {
					text += fmt.Sprintf(" (%d)", cell.left)
				}
			}
			fmt.Fprintf(&b, " %-10s", text)
		}
	}
	return b.String()
}

// observer is a cgroup that is used only to count: everything that a client
// started is in it, and its user cannot write it.
type observer struct {
	dir string
	fd  int
}

func newObserver(t *testing.T) *observer {
	t.Helper()
	mount := unified()
	if mount == "" {
		t.Skip("no cgroup v2 is mounted, which would count what is left")
	}
	dir, err := os.MkdirTemp(mount, "locald-test-")
	if err != nil {
		t.Skipf("no cgroup for counting what is left: %v", err)
	}
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := &observer{dir, fd}
	t.Cleanup(func() {
		unix.Close(fd)
		o.clear(t)
		if err := unix.Rmdir(dir); err != nil {
			t.Errorf("cgroup %s: %v", dir, err)
		}
	})
	return o
}

// unified is where cgroup v2 is mounted.
func unified() string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		if strings.HasPrefix(after, "cgroup2 ") {
			return strings.Fields(before)[4]
		}
	}
	return ""
}

// member is a process in the cgroup that is not locald's own.
type member struct {
	pid  int
	run  int // of the service; 0 when it does not tell
	name string
}

func (m member) String() string { return fmt.Sprintf("process %d %q", m.pid, m.name) }

// others is what is there and is not of this run, nor locald itself.
func (o *observer) others(t *testing.T, current int) (others []member) {
	t.Helper()
	for _, m := range o.members(t) {
		if current == 0 || m.run != current {
			others = append(others, m)
		}
	}
	return others
}

// members stops everything in the cgroup for an instant, because some change
// their PID faster than one can read.
func (o *observer) members(t *testing.T) []member {
	t.Helper()
	o.freeze(t, true)
	defer o.freeze(t, false)
	return o.frozen(t)
}

// frozen lists the members while nothing in the cgroup runs.
func (o *observer) frozen(t *testing.T) (members []member) {
	t.Helper()
	for _, pid := range o.pids(t) {
		exe, gone := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
		name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
		m := member{pid: pid, run: bornIn(t, pid), name: strings.TrimSpace(string(name))}
		switch {
		case err != nil:
			continue // it was ending
		case m.run == 0 && (exe == locald() || errors.Is(gone, fs.ErrNotExist)):
			continue // itself, or a child of it before its exec, or one that ends: it has no memory any more
		}
		members = append(members, m)
	}
	return members
}

// bornIn is the run that a hostile process says it is of, 0 if it is none: by its
// name, or where it has just been executed by what it is to take the name from.
func bornIn(t *testing.T, pid int) (run int) {
	t.Helper()
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
		return string(text)
	}
	if text, ok := strings.CutPrefix(strings.TrimSpace(read("comm")), "run "); ok {
		return number(t, text)
	}
	argv := strings.Split(read("cmdline"), "\x00")
	if argv[0] == "hostile" && len(argv) > 2 {
		run, _ = strconv.Atoi(argv[2])
	} else if strings.HasSuffix(argv[0], "/hostile") {
		_, after, _ := strings.Cut("\x00"+read("environ"), "\x00LOCALD_RUN=")
		text, _, _ := strings.Cut(after, "\x00")
		run, _ = strconv.Atoi(text)
	}
	return run
}

// itself reports whether a process executes locald.
func itself(pid int) bool {
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	return err == nil && exe == locald()
}

// keeper is the daemon's child that holds the services' processes.
func (o *observer) keeper(t *testing.T, daemon int) int {
	t.Helper()
	for _, pid := range o.pids(t) {
		if stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")); err == nil && itself(pid) {
			_, rest, _ := strings.Cut(string(stat), ") ")
			if strings.Fields(rest)[1] == strconv.Itoa(daemon) {
				return pid
			}
		}
	}
	t.Fatalf("daemon %d has no keeper", daemon)
	return 0
}

func (o *observer) pids(t *testing.T) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(o.dir, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.FieldsSeq(string(text)) {
		pids = append(pids, number(t, field))
	}
	return pids
}

func (o *observer) set(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

// freeze returns once the kernel says that nothing runs, or that it may again.
func (o *observer) freeze(t *testing.T, frozen bool) {
	t.Helper()
	value := "0"
	if frozen {
		value = "1"
	}
	o.set(t, "cgroup.freeze", value)
	o.event(t, "frozen "+value)
}

// event waits for a line in cgroup.events.
func (o *observer) event(t *testing.T, line string) {
	t.Helper()
	f, err := os.Open(filepath.Join(o.dir, "cgroup.events"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for until := time.Now().Add(limit); time.Now().Before(until); {
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(strings.Split(string(text), "\n"), line) {
			return
		}
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 10); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	t.Fatalf("%s: never %q", o.dir, line)
}

// clear ends what a failed promise left, so that it is counted once.
func (o *observer) clear(t *testing.T) {
	t.Helper()
	for range 1000 {
		o.freeze(t, true)
		left := o.frozen(t)
		for _, m := range left {
			_ = unix.Kill(m.pid, unix.SIGKILL) // it is frozen, so the number is its own
		}
		o.freeze(t, false)
		if len(left) == 0 {
			return
		}
	}
	t.Fatalf("%s cannot be emptied", o.dir)
}

// needOrdinary skips where no process of another user can be made.
func needOrdinary(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can run locald as an ordinary user in a cgroup that this one cannot write")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip(err)
	}
}

// compiled is the program that a C source makes.
func compiled(t *testing.T, source string) string {
	t.Helper()
	path := filepath.Join(built, strings.TrimSuffix(filepath.Base(source), ".c"))
	if _, err := os.Stat(path); err != nil {
		if out, err := exec.CommandContext(t.Context(), "gcc", "-O2", "-static", "-o", path, source).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return path
}

// newOrdinary is a sandbox of an ordinary user, whose clients, and so all that
// they bring about, are born in the observer's cgroup.
func newOrdinary(t *testing.T, toml string) (*sandbox, *observer) {
	t.Helper()
	seen := newObserver(t)
	s := ownedBy(t, ordinary, toml)
	s.as = func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &unix.SysProcAttr{
			Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}, UseCgroupFD: true, CgroupFD: seen.fd,
		}
	}
	return s, seen
}

// ownedBy is a sandbox all of whose files are a user's.
func ownedBy(t *testing.T, uid int, toml string) *sandbox {
	t.Helper()
	root, err := os.MkdirTemp("", "locald-user-") // t.TempDir is below a directory of root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	s := sandboxAt(t, root, filepath.Join(root, "data"), toml)
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, uid))
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// canaries are processes that have nothing to do with locald and note every
// signal that they get.
type canaries struct {
	t       *testing.T
	touched atomic.Int64
	all     []*canary
}

type canary struct {
	cmd  *exec.Cmd
	stay *os.File // ends when this is closed
	read chan struct{}
}

func newCanaries(t *testing.T, count int) *canaries {
	t.Helper()
	c := &canaries{t: t}
	for range count {
		if err := c.add(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// add starts one more.
func (c *canaries) add() error {
	in, stay, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	one := &canary{cmd: exec.Command(compiled(c.t, "testdata/bystander.c"), "canary"), stay: stay, read: make(chan struct{})}
	one.cmd.Dir, one.cmd.Stdin = "/", in
	one.cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}, Setsid: len(c.all)%2 == 1}
	out, err := one.cmd.StdoutPipe()
	if err == nil {
		err = one.cmd.Start()
	}
	if err != nil {
		stay.Close()
		return err
	}
	c.all = append(c.all, one)
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "ready") {
		c.touched.Add(1)
		c.t.Errorf("no canary: %q, %v", lines.Text(), lines.Err())
	}
	go func() {
		defer close(one.read)
		for lines.Scan() {
			c.touched.Add(1)
			c.t.Errorf("canary: %s", lines.Text())
		}
	}()
	return nil
}

// end ends the canaries: none was stopped, killed or otherwise signalled.
func (c *canaries) end() {
	c.t.Helper()
	for len(c.all) > 0 {
		c.endOldest()
	}
}

func (c *canaries) endOldest() {
	c.t.Helper()
	one := c.all[0]
	c.all = c.all[1:]
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", one.cmd.Process.Pid)); err != nil || strings.Contains(string(stat), ") T ") {
		c.touched.Add(1)
		c.t.Errorf("a canary was stopped: %s %v", stat, err)
		_ = one.cmd.Process.Kill()
	}
	one.stay.Close()
	select {
	case <-one.read:
	case <-time.After(limit):
		c.t.Errorf("canary %d does not end", one.cmd.Process.Pid)
		_ = one.cmd.Process.Kill()
	}
	if err := one.cmd.Wait(); err != nil {
		c.touched.Add(1)
		c.t.Errorf("a canary ended: %v", err)
	}
}
