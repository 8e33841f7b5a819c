package system

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// innocents is how many processes take over a number, at least.
const innocents = 1000

// TestRecycledPID gives every number that locald knows, of its own processes and
// of the services', to an innocent process of the same user, which leads a
// session and a group of that number too. Then locald restores, stops or takes
// down what it takes for its own.
func TestRecycledPID(t *testing.T) {
	promise(t, "P3", "F15", "F16")
	if !within(t) {
		return
	}
	var toml strings.Builder
	toml.WriteString("[project]\nname = \"recycled\"\n")
	for _, kind := range []string{"plain", "setsid", "daemon", "title", "doublefork"} {
		fmt.Fprintf(&toml, hostileService, kind, compiled(t, "../keeper/testdata/hostile.c"), kind)
	}
	toml.WriteString(`
[services.many]
type = "worker"
command = "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1000 & done; wait"
stop_timeout = "150ms"
`)
	r := &recycling{sandbox: ownedBy(t, ordinary, toml.String())}
	r.as = asOrdinary
	count, hit := 0, 0
	for round := 0; (count < times(30, innocents) || round < len(recyclings)) && !t.Failed(); round++ {
		r.run("up")
		how := recyclings[round%len(recyclings)]
		taken, touched := how.happens(r)
		t.Logf("%s: %d numbers taken over, %d of their processes signalled", how.says, taken, touched)
		r.run("down")
		count, hit = count+taken, hit+touched
	}
	tried(t, count, hit)
}

const hostileService = `
[services.%s]
type = "worker"
command = [%q, %q]
stop_timeout = "150ms"
backoff = "50ms"
`

// recyclings are the ways in which numbers that locald knows come to belong to
// others, and what it is asked to do then.
var recyclings = []struct {
	says    string
	happens func(*recycling) (taken, touched int)
}{
	{"all killed, restored", func(r *recycling) (taken, touched int) {
		return r.afterCrash("status")
	}},
	{"all killed, taken down", func(r *recycling) (taken, touched int) {
		return r.afterCrash("down")
	}},
	{"services end while the daemon does not look, stopped", func(r *recycling) (taken, touched int) {
		return r.unseen(false)
	}},
	{"services and keeper end while the daemon does not look, stopped", func(r *recycling) (taken, touched int) {
		return r.unseen(true)
	}},
}

type recycling struct{ *sandbox }

// afterCrash kills everything, gives its numbers away, and then asks a daemon
// that knows it only from its records.
func (r *recycling) afterCrash(command string) (taken, touched int) {
	r.t.Helper()
	daemon := r.look().Daemon.PID
	ours := r.ours()
	numbers := slices.Concat(ours, r.recorded())
	kill(r.t, daemon) // first, so that nothing is started again
	for _, pid := range ours {
		killIfThere(r.t, pid)
	}
	for _, pid := range ours {
		r.reaped(pid)
	}
	t := r.take(numbers)
	r.run(command)
	return t.end(ours)
}

// unseen ends the services, and the keeper too, while the daemon is stopped, and
// gives their numbers away before it goes on.
func (r *recycling) unseen(keeper bool) (taken, touched int) {
	r.t.Helper()
	daemon := r.look().Daemon.PID
	holds := r.keeper(daemon)
	ours := slices.DeleteFunc(r.ours(), func(pid int) bool { return pid == daemon || pid == holds })
	if err := unix.Kill(daemon, unix.SIGSTOP); err != nil {
		r.t.Fatal(err)
	}
	if keeper {
		killIfThere(r.t, holds)
	}
	for _, pid := range ours {
		killIfThere(r.t, pid)
	}
	for _, pid := range ours {
		r.reaped(pid)
	}
	t := r.take(ours)
	if err := unix.Kill(daemon, unix.SIGCONT); err != nil {
		r.t.Fatal(err)
	}
	r.run("stop", "plain", "setsid", "daemon", "title", "doublefork", "many")
	return t.end(ours)
}

// ours is every process of the user: there are no others but what locald and its
// services made.
func (r *recycling) ours() (pids []int) {
	r.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+e.Name(), &st) == nil && st.Uid == ordinary {
			pids = append(pids, pid)
		}
	}
	return pids
}

// reaped waits until a process that has ended is no zombie any more, for a
// moment: its parent may be one that does not look.
func (r *recycling) reaped(pid int) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 40 {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			return
		}
		<-tick.C
	}
}

var digits = regexp.MustCompile(`[0-9]+`)

// recorded is every number in locald's files that could be a PID.
func (r *recycling) recorded() (numbers []int) {
	r.t.Helper()
	err := filepath.WalkDir(r.places().Dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // it was on its way into another's place
			return nil
		}
		for _, one := range digits.FindAllString(string(text), -1) {
			if n, err := strconv.Atoi(one); err == nil && n > 1 && n < 32768 && !slices.Contains(numbers, n) {
				numbers = append(numbers, n)
			}
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return numbers
}

// takeover is a set of innocent processes.
type takeover struct {
	t       *testing.T
	cmd     *exec.Cmd
	stay    *os.File
	out     *os.File
	lines   *bufio.Scanner
	holders []int
}

// take has a process of the user born with each of these numbers that is free.
func (r *recycling) take(numbers []int) *takeover {
	r.t.Helper()
	args := []string{"take", strconv.Itoa(ordinary)}
	for i, n := range numbers {
		if !slices.Contains(numbers[:i], n) {
			args = append(args, strconv.Itoa(n))
		}
	}
	in, stay, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	defer in.Close()
	t := &takeover{t: r.t, cmd: exec.Command(compiled(r.t, "testdata/bystander.c"), args...), stay: stay}
	t.cmd.Dir, t.cmd.Stdin = "/", in
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := t.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	t.out = out.(*os.File)
	t.lines = bufio.NewScanner(out)
	for said := 0; said < len(args)-2; { // each is taken or refused
		if !t.lines.Scan() {
			r.t.Fatalf("the numbers are not taken over: %v", t.lines.Err())
		}
		switch word, number, _ := strings.Cut(t.lines.Text(), " "); word {
		case "ready":
			n, err := strconv.Atoi(number)
			if err != nil {
				r.t.Fatal(err)
			}
			t.holders = append(t.holders, n)
			said++
		case "refused":
			said++
		case "taken":
		default:
			r.t.Fatal(t.lines.Text())
		}
	}
	return t
}

// end returns how many of these numbers were taken over, and how many of all
// the processes were signalled.
func (t *takeover) end(numbers []int) (taken, touched int) {
	t.t.Helper()
	for _, pid := range t.holders {
		if slices.Contains(numbers, pid) {
			taken++
		}
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(stat), ") T ") {
			touched++
			t.t.Errorf("an innocent process was stopped: %s %v", stat, err)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	t.stay.Close()
	if err := t.out.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.t.Fatal(err)
	}
	for t.lines.Scan() {
		if t.lines.Text() != "taken" {
			touched++
			t.t.Errorf("an innocent process: %s", t.lines.Text())
		}
	}
	if err := t.lines.Err(); err != nil {
		t.t.Fatalf("innocent processes do not end: %v", err)
	}
	if err := t.cmd.Wait(); err != nil && touched == 0 {
		t.t.Errorf("innocent processes: %v", err)
	}
	return taken, touched
}

// TestWrappingPIDs stops and sweeps what changes its PID all the time where
// there are so few numbers that each is given out again at once, while innocent
// processes are born and end.
func TestWrappingPIDs(t *testing.T) {
	promise(t, "P1", "P3", "F10", "F11", "F15", "F16")
	if !within(t) {
		return
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil || major < 6 || major == 6 && minor < 14 {
		t.Skip("before Linux 6.14 the greatest PID is that of the whole machine")
	}
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte("1500"), 0); err != nil {
		t.Fatal(err)
	}
	var toml strings.Builder
	toml.WriteString("[project]\nname = \"wrapping\"\n")
	for _, kind := range []string{"storm", "hop50", "hop1000", "hop", "onterm"} {
		fmt.Fprintf(&toml, hostileService, kind, compiled(t, "../keeper/testdata/hostile.c"), kind)
	}
	s := ownedBy(t, ordinary, toml.String())
	s.as = asOrdinary
	bystanders := &canaries{t: t}
	born, done, ended := 0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer bystanders.end()
		for {
			select {
			case <-done:
				return
			default:
			}
			err := bystanders.add()
			if err == nil {
				born++
			} else if !errors.Is(err, unix.EAGAIN) { // there are moments in which every number is taken
				t.Error(err)
				return
			}
			if len(bystanders.all) > 25 || err != nil && len(bystanders.all) > 0 {
				bystanders.endOldest()
			}
		}
	}()
	for round := range times(3, 60) {
		s.run("up")
		switch round % 3 {
		case 0:
			s.run("stop", "storm", "hop50", "hop1000", "hop", "onterm")
		case 1:
			kill(t, s.look().Daemon.PID)
		case 2:
			daemon := s.look().Daemon.PID
			keeper := s.keeper(daemon)
			kill(t, daemon)
			killIfThere(t, keeper)
		}
		s.run("down")
		if t.Failed() {
			break
		}
	}
	close(done)
	<-ended
	t.Logf("%d innocent processes born among the numbers of those that were stopped", born)
	if born < times(30, innocents) {
		t.Errorf("only %d innocent processes were born", born)
	}
	tried(t, born, int(bystanders.touched.Load()))
}

func asOrdinary(cmd *exec.Cmd) {
	cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
}

// within has the test run by itself in a PID namespace of its own, where it may
// decide about numbers, and reports what became of it. There it returns true.
func within(t *testing.T) bool {
	t.Helper()
	if os.Getenv(builtVar) != "" {
		return true
	}
	needOrdinary(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	compiled(t, "../keeper/testdata/hostile.c")
	cmd := exec.CommandContext(t.Context(), compiled(t, "testdata/bystander.c"), "init", self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), builtVar+"="+built)
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "=== ATTR") && len(fields) == 5 && fields[3] != "promise":
			t.Attr(fields[3], fields[4])
		case strings.HasPrefix(line, "--- SKIP"):
			t.Skip(string(out))
		}
	}
	t.Log(string(out))
	if err != nil {
		t.Errorf("in a PID namespace: %v", err)
	}
	return false
}
