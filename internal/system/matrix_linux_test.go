package system

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/ipc"
)

// mutating are the system calls that change something which others see.
var mutating = []string{
	"openat", "write", "pwrite64", "writev", "sendto", "sendmsg", "renameat", "renameat2", "rename", "unlinkat", "unlink", "mkdirat", "mkdir",
	"rmdir", "fsync", "fdatasync", "ftruncate", "fallocate", "fchmod", "fchmodat", "linkat", "symlinkat", "mknodat", "flock",
	"clone", "clone3", "fork", "vfork", "execve", "kill", "pidfd_send_signal", "wait4", "waitid", "setpgid", "setsid", "prctl", "prlimit64",
	"socket", "socketpair", "connect", "bind", "listen", "shutdown", "mount",
}

const matrix = `[project]
name = "matrix"

[services.spare]
command = ["$PROGRAM", "once", "spare.notes"]
backoff = "50ms"
max_restarts = 1000

[services.app]
command = ["$PROGRAM", "once", "app.notes"]
backoff = "50ms"
max_restarts = 1000

[services.worker]
type = "worker"
command = "exec $PROGRAM once worker.notes"
backoff = "50ms"
max_restarts = 1000
`

// column is something that is done while one of the two processes is killed.
type column struct {
	name    string
	keeper  bool                // it is the keeper that is killed
	prepare func(*sandbox)      // what has to be before
	do      []string            // the command; none is the start of a daemon
	may     map[string][]string // what may be wanted of a service after it
	must    map[string]string   // what is, when it has said that it was done
}

func columns() []column {
	either, up, down := []string{"up", "down"}, []string{"up"}, []string{"down"}
	bring := column{
		prepare: func(s *sandbox) { s.run("up", "spare"); s.run("down", "app", "worker") }, do: []string{"up"},
		may:  map[string][]string{"spare": up, "app": either, "worker": either},
		must: map[string]string{"app": "up", "worker": "up"},
	}
	take := column{
		prepare: func(s *sandbox) { s.run("up") }, do: []string{"down", "app", "worker"},
		may:  map[string][]string{"spare": up, "app": either, "worker": either},
		must: map[string]string{"app": "down", "worker": "down"},
	}
	all := map[string][]string{"spare": up, "app": up, "worker": up}
	again := column{prepare: take.prepare, do: []string{"restart", "app", "worker"}, may: all}
	some := map[string][]string{"spare": up, "app": up, "worker": down}
	restored := column{
		name: "daemon restore", may: some,
		prepare: func(s *sandbox) { s.run("up"); s.run("down", "worker"); s.run("server", "stop") },
	}
	swept := column{
		name: "daemon sweep", may: some,
		prepare: func(s *sandbox) {
			s.run("up")
			s.run("down", "worker")
			daemon := s.status().Daemon.PID
			keeper := s.keeper(daemon)
			kill(s.t, daemon)
			killIfThere(s.t, keeper)
		},
	}
	table := []column{restored, swept}
	for _, keeper := range []bool{false, true} {
		for name, c := range map[string]column{"up": bring, "down": take, "restart": again} {
			c.keeper, c.name = keeper, "daemon "+name
			if keeper {
				c.name = "keeper " + name
			}
			table = append(table, c)
		}
	}
	slices.SortFunc(table, func(a, b column) int { return strings.Compare(a.name, b.name) })
	return table
}

// instant is the call of a thread at which the process is killed, before the call
// does anything: the nth of its kind in that thread.
type instant struct {
	call string
	nth  int
}

// A sample takes no longer than this, and a cell of the whole table is tried so
// often until the process is killed there: which thread makes a call is not the
// same each time.
const (
	sampled = 40 * time.Second
	tries   = 3
)

// TestKillMatrix kills the daemon, or its keeper, at each system call by which
// it changes anything, while it starts, stops, restarts, restores and sweeps.
// What comes after has one copy of each service that is wanted, and nothing
// else. A command that was cut off may have been carried out or not.
func TestKillMatrix(t *testing.T) {
	promise(t, "P4", "P5", "P14", "F20", "F21", "F22", "F23", "F61")
	needStrace(t)
	seed := firstSeed(t)
	chance := rand.New(rand.NewPCG(seed, 0))
	s := newSandbox(t, config(matrix))
	s.environ = append(s.environ, "GOMAXPROCS=1") // the same thread makes the same call more often
	began, runs, reached, points := time.Now(), 0, 0, map[string]bool{}
	over := func() bool { return !full() && time.Since(began) > sampled }
	table := columns()
	chance.Shuffle(len(table), func(i, j int) { table[i], table[j] = table[j], table[i] })
	for _, c := range table {
		if over() {
			t.Logf("%s: not tried, the time is over", c.name)
			continue
		}
		trace, killed := s.strike(c, instant{})
		if killed || t.Failed() {
			t.Fatalf("%s: without a kill, %v:\n%s", c.name, killed, trace)
		}
		began, all := time.Now(), runs
		_, cells := callsOf(trace)
		chance.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
		for _, at := range cells[:min(len(cells), times(3, len(cells)))] {
			for try := 0; try < times(1, tries) && !over(); try++ {
				trace, killed := s.strike(c, at)
				runs++
				if t.Failed() {
					t.Fatalf("LOCALD_TEST_SEED=%d %s, killed at %s %d (%v)", seed, c.name, at.call, at.nth, killed)
				}
				if killed {
					reached++
					points[c.name+" "+point(trace)] = true
					break
				}
			}
		}
		t.Logf("%s: %d runs for %d cells in %v", c.name, runs-all, len(cells), time.Since(began).Round(time.Millisecond))
	}
	t.Logf("%d runs in %v; the process was killed in %d, at %d different calls", runs, time.Since(began).Round(time.Second), reached, len(points))
	tried(t, runs, 0)
}

// needStrace skips a test where strace is not installed or may not trace.
func needStrace(t *testing.T) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "strace", "-qq", "-b", "execve", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		missing(t, "strace", fmt.Sprintf("strace 5.15 or later, allowed to trace: %v: %s", err, out))
	}
}

// strike does what a column says while the process dies at one call, and
// proves what comes after. Without a call it merely traces.
func (s *sandbox) strike(c column, at instant) (trace string, killed bool) {
	s.t.Helper()
	c.prepare(s)
	log := filepath.Join(s.root, "trace")
	args := []string{"-f", "-b", "execve", "-y", "-e", "signal=none", "-e", "trace=" + strings.Join(mutating, ","), "-o", log}
	if at.call != "" {
		args = append(args, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", at.call, at.nth))
	}
	var end func()
	code, pid, least := 0, 0, 0
	if len(c.do) == 0 {
		end = s.traced(args)
		code = s.try("status").code // what it asks may be cut off too
	} else {
		before := s.status()
		if pid = before.Daemon.PID; c.keeper {
			pid = s.keeper(pid)
		}
		least = of(before, "spare").Run
		end = s.attached(args, pid)
		code = s.try(c.do...).code
	}
	end()
	text, err := os.ReadFile(log)
	if err != nil {
		s.t.Fatal(err)
	}
	trace = string(text)
	if pid == 0 { // the first thread of a process has its number
		first, _, _ := strings.Cut(trace, " ")
		pid = number(s.t, first)
	}
	made, _ := callsOf(trace)
	if at.call != "" && made[at.call] >= at.nth {
		killed = s.ends(pid)
	}
	if killed && c.keeper {
		least++ // its services are not what they were, as soon as the daemon knows
	}
	after := s.consistent(c, code, least)
	return trace, killed || !c.keeper && after.Daemon.PID != pid
}

// traced starts a daemon that is traced, and returns when it has started or
// died. end lets go of it.
func (s *sandbox) traced(args []string) (end func()) {
	s.t.Helper()
	ready, write, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer ready.Close()
	daemon := s.command(s.t.Context(), "server", "start", "--ready-fd", "3")
	for _, entry := range s.environ { // strace itself is not to look like something of the sandbox
		args = append(args, "-E", entry)
	}
	cmd := exec.Command("strace", append(args, daemon.Args...)...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", []string{"PATH=" + os.Getenv("PATH")}, []*os.File{write}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	write.Close()
	_, _ = bufio.NewReader(ready).ReadString('\n') // it is ready, or gone
	return func() { letGo(cmd) }
}

// attached begins to trace a process that runs. end lets go of it.
func (s *sandbox) attached(args []string, pid int) (end func()) {
	s.t.Helper()
	cmd := exec.Command("strace", append(args, "-p", strconv.Itoa(pid))...)
	said, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	for lines.Scan() && !strings.Contains(lines.Text(), " attached") {
	}
	go func() {
		for lines.Scan() { // whatever else it has to say
		}
	}()
	return func() { letGo(cmd) }
}

// dying is how long a process may take to end that was killed. One that was
// about to become another program was, when it takes longer.
const dying = 2 * time.Second

// ends reports whether a process ends soon.
func (s *sandbox) ends(pid int) bool {
	s.t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true // it has
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(dying.Milliseconds()))
	return err == nil && n > 0
}

// letGo ends strace; what it traced runs on without it. Asked nicely, strace
// would wait for threads of a process that is being killed.
func letGo(strace *exec.Cmd) {
	_ = strace.Process.Kill() // it may have ended with the process
	_ = strace.Wait()
}

// consistent proves what has to hold after a command that was cut off, or not.
// The service that nobody touched is in this run at least.
func (s *sandbox) consistent(c column, code, least int) ipc.Status {
	s.t.Helper()
	before := s.try("status", "--json")
	var status ipc.Status
	if err := json.Unmarshal([]byte(before.stdout), &status); err != nil || before.code != 0 {
		s.t.Fatalf("%s: %v: %v", c.name, err, before)
	}
	status = s.until("as it is wanted", func(now ipc.Status) bool { return settled(now) && of(now, "spare").Run >= least })
	for name, may := range c.may {
		svc := of(status, name)
		if !slices.Contains(may, svc.Desired) {
			s.t.Errorf("%s: %s is wanted %q, may be %v", c.name, name, svc.Desired, may)
		}
		if must := c.must[name]; must != "" && code == 0 && svc.Desired != must {
			s.t.Errorf("%s: it was done, and %s is wanted %q", c.name, name, svc.Desired)
		}
		s.starts(name + ".notes")
	}
	s.exactly(status)
	for _, path := range s.stateFiles() {
		if text, err := os.ReadFile(path); err == nil && !intact(path, text) {
			s.t.Errorf("%s: %s: %q", c.name, path, text)
		}
	}
	return status
}

// settled reports whether every service is as it is wanted.
func settled(status ipc.Status) bool {
	return !slices.ContainsFunc(status.Services, func(svc ipc.Service) bool {
		if svc.Desired == "up" {
			return svc.State != "running" || svc.ReadyAt == ""
		}
		return svc.State != "stopped"
	})
}

// stateFiles are those that hold what survives the daemon.
func (s *sandbox) stateFiles() (paths []string) {
	for _, pattern := range []string{"*.json", "projects/*/*.json", "projects/*/services.jsonl"} {
		found, _ := filepath.Glob(filepath.Join(s.places().Dir, pattern)) // a pattern that is right
		paths = append(paths, found...)
	}
	return paths
}

// intact reports whether a file's content, or each line of it, is JSON.
func intact(path string, text []byte) bool {
	if filepath.Ext(path) != ".jsonl" {
		return json.Valid(text)
	}
	for line := range bytes.Lines(text) {
		if !json.Valid(line) || !bytes.HasSuffix(line, []byte("\n")) {
			return false
		}
	}
	return len(text) > 0
}

var traceLine = regexp.MustCompile(`^(\d+) +(\w+)\((.*)`)

// callsOf reads a trace: how often the thread that makes most of one kind makes
// it, and the cells. A file that is only read, the Go scheduler's waking itself
// and a lock that is asked for over and over change nothing.
func callsOf(trace string) (made map[string]int, cells []instant) {
	made = map[string]int{}
	of := map[string]int{} // by thread and call
	seen := map[instant]bool{}
	for line := range strings.Lines(trace) {
		m := traceLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		of[m[1]+m[2]]++
		at := instant{m[2], of[m[1]+m[2]]}
		made[at.call] = max(made[at.call], at.nth)
		idle := at.call == "openat" && !strings.Contains(m[3], "O_CREAT") || at.call == "write" && strings.Contains(m[3], "[eventfd]") ||
			strings.HasPrefix(at.call, "clone") && strings.Contains(m[3], "CLONE_THREAD") || at.call == "flock" && strings.Contains(m[3], "EAGAIN") ||
			at.call == "prlimit64" && strings.Contains(m[3], ", NULL, {") // a mark is read
		if !idle && !seen[at] {
			seen[at] = true
			cells = append(cells, at)
		}
	}
	return made, cells
}

// point is the call at which the process of a trace was killed, without what
// differs from time to time.
func point(trace string) string {
	last := ""
	for line := range strings.Lines(trace) {
		if m := traceLine.FindStringSubmatch(line); m != nil {
			last = m[2] + " " + numbers.ReplaceAllString(m[3][:min(60, len(m[3]))], "N")
		}
	}
	return last
}

var numbers = regexp.MustCompile(`[0-9]+`)
