package system

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/ipc"
)

// writers is a project of services that write all the time: see
// testdata/service, "write".
const writers = `[project]
name = "load"

[services.plain]
type = "worker"
command = ["$PROGRAM", "write", "plain", "plain.notes"]

[services.long]
type = "worker"
command = ["$PROGRAM", "write", "long", "long.notes"]

[services.pieces]
type = "worker"
command = ["$PROGRAM", "write", "pieces", "pieces.notes"]

[services.fast]
type = "worker"
command = ["$PROGRAM", "write", "fast", "fast.notes"]

[services.front]
command = ["$PROGRAM", "write", "plain", "front.notes"]
depends_on = ["fast"]

[services.deaf]
type = "worker"
command = ["$PROGRAM", "write", "deaf", "deaf.notes"]
stop_timeout = "200ms"

[services.brief]
type = "worker"
command = ["$PROGRAM", "write", "brief", "brief.notes"]
restart = "always"
backoff = "20ms"
`

// groups is what one client at a time gives commands for, so that the order of
// the commands for a service is known.
var groups = [][]string{{"plain"}, {"long", "pieces"}, {"fast", "front"}, {"deaf"}, {"brief"}}

const always = "plain" // is never stopped, so that something is wanted

// load is a sandbox under load, and what is known of it.
type load struct {
	*sandbox
	chance *rand.Rand

	mu     sync.Mutex
	wanted map[string]bool // by the last command that was answered
	open   []deed          // that were cut off, and may have been done

	read      map[string]*transcript
	orphaned  map[string]map[int]uint64 // bytes by service and run when the daemon was killed
	unwatched uint64                    // bytes written while there was no daemon
	cut, done int                       // commands
}

// deed is a command that changes what is wanted: all of it, or nothing.
type deed struct {
	args  []string
	names []string
	up    bool
}

func (d deed) String() string { return strings.Join(d.args, " ") }

// TestCrashUnderLoad kills the daemon at random instants, while services write
// and clients ask for this and that. Whatever had been answered holds, exactly
// one copy of what is wanted runs, and not a byte of any log is missing.
func TestCrashUnderLoad(t *testing.T) {
	promise(t, "P4", "P5", "P11", "P12", "P15", "F19", "F20", "F23", "F24", "F53", "F57")
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("LOCALD_TEST_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LOCALD_TEST_SEED=%d", seed)
	l := &load{
		sandbox: newSandbox(t, config(writers)), wanted: map[string]bool{},
		read: map[string]*transcript{}, orphaned: map[string]map[int]uint64{},
	}
	l.run("up")
	status := l.status()
	for _, svc := range status.Services {
		l.wanted[svc.Name] = true
		l.read[svc.Name] = &transcript{name: svc.Name, runs: map[int]*progress{}}
	}
	l.holds(status)
	all := times(40, 1000)
	began, failures := time.Now(), 0
	var took []time.Duration
	for round := range all {
		l.chance = rand.New(rand.NewPCG(seed, uint64(round)))
		before := time.Now()
		kills, story := l.round(status.Daemon.PID)
		status = l.status()
		took = append(took, time.Since(before))
		l.holds(status)
		if t.Failed() {
			failures++
			t.Logf("round %d, killed after %v: %v", round, kills, story)
			break
		}
	}
	tried(t, len(took), failures)
	lines := uint64(0)
	for _, r := range l.read {
		lines += r.seq
	}
	t.Logf("%d rounds in %v, each %s; commands: %d answered, %d cut off; %d numbered lines without a gap; %d bytes written without a daemon",
		len(took), time.Since(began).Round(time.Second), spread(took), l.done, l.cut, lines, l.unwatched)
	if l.unwatched == 0 {
		t.Error("nothing was ever written while there was no daemon: the test shows less than it says")
	}
}

// round lets clients loose, kills the daemon meanwhile, now and then also the
// next one while it starts, and returns when all of them have ended.
func (l *load) round(daemon int) (kills []time.Duration, story []string) {
	l.t.Helper()
	fd, err := unix.PidfdOpen(daemon, 0)
	if err != nil {
		l.t.Fatalf("daemon %d: %v", daemon, err)
	}
	defer unix.Close(fd)
	const window = 300 * time.Millisecond
	instant := func() time.Duration { return time.Duration(l.chance.Int64N(int64(window))) }
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.t.Context()))
	defer cancel()
	var clients, followers sync.WaitGroup
	for _, group := range groups {
		if l.chance.IntN(2) == 0 {
			continue
		}
		after, deeds := instant(), []deed{l.deed(group), l.deed(group)}
		story = append(story, fmt.Sprintf("%v: %v", after.Round(time.Millisecond), deeds))
		clients.Go(func() {
			<-time.After(after)
			for _, d := range deeds {
				if !l.do(d) {
					return
				}
			}
		})
	}
	for range l.chance.IntN(3) {
		after := instant()
		clients.Go(func() {
			<-time.After(after)
			l.looks("status")
		})
	}
	for range l.chance.IntN(3) {
		after, name := instant(), groups[l.chance.IntN(len(groups))][0]
		followers.Go(func() {
			<-time.After(after)
			l.follows(ctx, name)
		})
	}
	kills = append(kills, instant())
	again := l.chance.IntN(3) == 0
	if again {
		kills = append(kills, instant())
	}
	<-time.After(kills[0])
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		l.t.Fatalf("daemon %d: %v", daemon, err)
	}
	gone(l.t, fd)
	l.orphan()
	if again {
		clients.Go(func() { l.looks("status") })
		<-time.After(kills[1])
		l.killDaemons()
	}
	clients.Wait()
	cancel()
	followers.Wait()
	return kills, story
}

// deed is one of the commands for a group, by chance.
func (l *load) deed(group []string) deed {
	names := group
	if len(group) > 1 && l.chance.IntN(2) == 0 {
		at := l.chance.IntN(len(group))
		names = group[at : at+1]
	}
	switch verb := []string{"start", "stop", "restart"}[l.chance.IntN(3)]; {
	case verb == "start":
		d := deed{append([]string{"start"}, names...), names, true}
		if slices.Contains(names, "front") {
			d.names = group // with what it depends on
		}
		return d
	case verb == "stop" && names[0] != always:
		return deed{append([]string{"stop"}, names...), names, false}
	}
	return deed{append([]string{"restart"}, names...), names, true}
}

// do gives a command and reports whether it was answered.
func (l *load) do(d deed) bool {
	r := l.try(d.args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch late := strings.Contains(r.stderr, "no whole request within"); {
	case r.code == 0:
		l.done++
		for _, name := range d.names {
			l.wanted[name] = d.up
		}
		return true
	case r.code == 125, late: // its daemon was killed, or this machine stood still
		l.cut++
		l.open = append(l.open, d)
	default:
		l.t.Errorf("locald %v: %v", d, r)
	}
	return false
}

// looks gives a command that changes nothing.
func (l *load) looks(args ...string) {
	if r := l.try(args...); r.code != 0 && r.code != 125 {
		l.t.Errorf("locald %v: %v", args, r)
	}
}

// follows reads a log until the daemon is killed, or the round is over.
func (l *load) follows(ctx context.Context, name string) {
	var out bytes.Buffer
	cmd := l.command(ctx, "logs", "-f", "--json", "--tail", "20", name)
	cmd.Stdout = &out
	_ = cmd.Run() // the daemon is killed, or the command is
	last := uint64(0)
	for text := range bytes.Lines(out.Bytes()) {
		var line ipc.LogLine
		if json.Unmarshal(text, &line) != nil {
			continue // cut by our own signal
		}
		if last != 0 && line.Seq != last+1 {
			l.t.Errorf("logs -f %s: number %d came after %d", name, line.Seq, last)
		}
		last = line.Seq
	}
}

// killDaemons kills a daemon that nobody may know yet.
func (l *load) killDaemons() {
	for _, p := range l.processes() {
		if strings.HasPrefix(p.argv, "locald server start") {
			killIfThere(l.t, p.pid)
		}
	}
}

// orphan notes how much services had written when the daemon was killed.
func (l *load) orphan() {
	for name := range l.read {
		for run, taken := range l.taken(name) {
			if l.orphaned[name] == nil {
				l.orphaned[name] = map[int]uint64{}
			}
			l.orphaned[name][run] = taken[0]
		}
	}
}

// taken is how many bytes of each stream the system has taken of a service, by
// run.
func (l *load) taken(name string) map[int][2]uint64 {
	text, err := os.ReadFile(filepath.Join(l.dir, name+".notes.bytes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Error(err)
	}
	all := map[int][2]uint64{}
	for run := 1; (run+1)*16 <= len(text); run++ {
		both := [2]uint64{binary.LittleEndian.Uint64(text[run*16:]), binary.LittleEndian.Uint64(text[run*16+8:])}
		if both[0] > 0 {
			all[run] = both
		}
	}
	return all
}

// holds checks everything that holds once a daemon is there again.
func (l *load) holds(status ipc.Status) {
	l.t.Helper()
	for _, d := range l.open {
		l.settles(d, status)
	}
	l.open = nil
	for _, svc := range status.Services {
		if up := svc.Desired == "up"; up != l.wanted[svc.Name] {
			l.t.Errorf("%s is wanted %s, and the last command that was answered said otherwise", svc.Name, svc.Desired)
		}
		if svc.Name == "brief" && l.wanted[svc.Name] {
			continue // it ends and starts all the time
		}
		if want := map[bool]string{true: "running", false: "stopped"}[l.wanted[svc.Name]]; svc.State != want {
			l.t.Errorf("%s is %s, want %s: %s", svc.Name, svc.State, want, svc.Reason)
		}
	}
	l.copies(status)
	var reading sync.WaitGroup
	for _, svc := range status.Services {
		reading.Go(func() { l.reads(svc) })
	}
	reading.Wait()
}

// settles finds out whether a command that was cut off was carried out: all of
// it, or nothing.
func (l *load) settles(d deed, status ipc.Status) {
	l.t.Helper()
	changed, kept := 0, 0
	for _, name := range d.names {
		switch is := of(status, name).Desired == "up"; {
		case is == l.wanted[name] && is != d.up:
			kept++
		case is != l.wanted[name] && is == d.up:
			changed++
		}
	}
	if changed > 0 && kept > 0 {
		l.t.Errorf("%v was cut off, and only a part of it was done", d)
	}
	if changed > 0 {
		for _, name := range d.names {
			l.wanted[name] = d.up
		}
	}
}

// copies proves that each wanted service runs once, and nothing else does.
func (l *load) copies(status ipc.Status) {
	l.t.Helper()
	all := l.processes()
	daemons, keepers, found := 0, []int(nil), map[string][]process{}
	for _, p := range all {
		switch name := p.env["LOCALD_SERVICE"]; {
		case p.pid == status.Daemon.PID:
			daemons++
		case strings.HasPrefix(p.argv, "locald keeper") && p.parent == status.Daemon.PID:
			keepers = append(keepers, p.pid)
		case p.run() != "":
			found[name] = append(found[name], p)
		}
	}
	for _, p := range all {
		if strings.HasPrefix(p.argv, "locald engines") && p.parent == status.Daemon.PID {
			continue
		}
		if p.pid != status.Daemon.PID && !slices.Contains(keepers, p.pid) && p.run() == "" && !slices.Contains(keepers, p.parent) {
			l.t.Errorf("a leftover: %v", p)
		}
	}
	if daemons != 1 || len(keepers) != 1 {
		l.t.Errorf("%d daemons and %d keepers among %v", daemons, len(keepers), all)
	}
	for _, svc := range status.Services {
		there := found[svc.Name]
		delete(found, svc.Name)
		switch {
		case svc.Name == "brief" && svc.Desired == "up":
			if len(there) > 1 {
				l.t.Errorf("%s: %v", svc.Name, there)
			}
		case svc.Desired != "up" && len(there) > 0:
			l.t.Errorf("%s is not wanted: %v", svc.Name, there)
		case svc.Desired == "up" && (len(there) != 1 || there[0].pid != svc.PID || there[0].env["LOCALD_RUN"] != strconv.Itoa(svc.Run)):
			l.t.Errorf("%s, process %d of run %d: %v", svc.Name, svc.PID, svc.Run, there)
		}
		l.notesOf(svc)
	}
	if len(found) > 0 {
		l.t.Errorf("leftovers: %v", found)
	}
}

// notesOf proves that there were never two copies, that no number of a run was
// given twice, and that no later copy was started than the one that is shown.
func (l *load) notesOf(svc ipc.Service) {
	l.t.Helper()
	l.starts(svc.Name + ".notes") // fails at an overlap
	last, pid := 0, 0
	for _, line := range l.notes(svc.Name + ".notes") {
		var run, by int
		if _, err := fmt.Sscanf(line, "run %d %d", &run, &by); err != nil {
			continue
		}
		if run <= last {
			l.t.Errorf("%s: run %d came after run %d", svc.Name, run, last)
		}
		last, pid = run, by
	}
	// A worker is ready when it executes its program, which may not have come to
	// its first line.
	if svc.Name != "brief" && svc.State == "running" && (last > svc.Run || last == svc.Run && pid != svc.PID) {
		l.t.Errorf("%s is process %d of run %d, and the last that started was %d of run %d", svc.Name, svc.PID, svc.Run, pid, last)
	}
}

// reads reads what was added to a service's log, and proves that all is there
// of the runs that are over.
func (l *load) reads(svc ipc.Service) {
	taken := l.taken(svc.Name)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.t.Context()), limit)
	defer cancel()
	r := l.read[svc.Name]
	out, err := l.command(ctx, "logs", "--json", "--tail", "all", "--since", "24h", "--after", strconv.FormatUint(r.seq, 10), svc.Name).Output()
	if err != nil {
		l.t.Errorf("logs %s: %v", svc.Name, err)
		return
	}
	for text := range bytes.Lines(out) {
		var line ipc.LogLine
		if err := json.Unmarshal(text, &line); err != nil {
			l.t.Errorf("logs %s: %v: %q", svc.Name, err, text)
			return
		}
		if err := r.add(line); err != nil {
			l.t.Errorf("the log of %s: %v", svc.Name, err)
			return
		}
	}
	over := r.checked
	for run, both := range taken {
		if run <= r.checked || run >= svc.Run && svc.Desired == "up" {
			continue // it has been seen to be whole, or goes on
		}
		over = max(over, run)
		for i, name := range []string{"stdout", "stderr"} {
			if have := r.of(run).bytes[name]; have < both[i] {
				l.t.Errorf("the log of %s: run %d wrote %d bytes to %s, and %d are there", svc.Name, run, both[i], name, have)
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for run, before := range l.orphaned[svc.Name] {
		if run > r.checked && run <= over {
			l.unwatched += taken[run][0] - before
		}
	}
	delete(l.orphaned, svc.Name)
	r.checked = over
	maps.DeleteFunc(r.runs, func(run int, _ *progress) bool { return run <= over })
}

// transcript is what is known of one log.
type transcript struct {
	name    string
	seq     uint64 // the last number that was read
	checked int    // the last run that is known to be whole
	runs    map[int]*progress
}

// progress is how far the numbered lines of one run have come, by stream.
type progress struct {
	line  map[string]int
	part  map[string]string // of a line whose end has not come
	bytes map[string]uint64
}

func (r *transcript) of(run int) *progress {
	p := r.runs[run]
	if p == nil {
		p = &progress{map[string]int{}, map[string]string{}, map[string]uint64{}}
		r.runs[run] = p
	}
	return p
}

// add takes the next line of a log, and says what is wrong with it.
func (r *transcript) add(l ipc.LogLine) error {
	if l.Seq != r.seq+1 {
		return fmt.Errorf("number %d came after %d: %+v", l.Seq, r.seq, l)
	}
	r.seq = l.Seq
	if l.Stream == "gap" {
		return fmt.Errorf("number %d is a gap of %d bytes, and nothing kept them from being stored", l.Seq, l.MissingBytes)
	}
	if l.Stream == "event" {
		return nil
	}
	p := r.of(l.Run)
	p.bytes[l.Stream] += uint64(len(l.Line))
	p.part[l.Stream] += l.Line
	if l.Partial {
		return nil
	}
	p.bytes[l.Stream]++
	text := p.part[l.Stream]
	p.part[l.Stream] = ""
	p.line[l.Stream]++
	n := p.line[l.Stream]
	head, letters := cutLast(text)
	if want := fmt.Sprintf("%s %d %d %d", l.Stream[3:], l.Run, n, len(letters)); head != want {
		return fmt.Errorf("number %d: the line is %.60q, want %q", l.Seq, text, want)
	}
	if strings.Trim(letters, string(rune('a'+n%26))) != "" {
		return fmt.Errorf("number %d: line %d of run %d is not what was written: %.60q", l.Seq, n, l.Run, letters)
	}
	return nil
}

func cutLast(text string) (before, after string) {
	at := strings.LastIndexByte(text, ' ')
	return text[:max(at, 0)], text[at+1:]
}
