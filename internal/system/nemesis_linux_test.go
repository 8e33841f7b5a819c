package system

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"github.com/locald/locald/ipc"
)

const (
	clients  = 8
	world    = time.Minute      // how long one lasts, its ends included
	ending   = 15 * time.Second // of it, left for its last round
	stormy   = 8 * time.Second  // of a round, before it is left in peace
	quiet    = 10 * time.Second // within which all is as it should be
	patience = 20 * time.Second // until a command that was interrupted counts as one that hangs
)

const storming = `[project]
name = "nemesis"

[services.app]
command = ["$COPY", "hold", "app.notes"]
backoff = "50ms"
max_restarts = 1000

[services.worker]
type = "worker"
command = "exec $COPY hold worker.notes"
restart = "always"
backoff = "50ms"

[services.other]
command = ["$COPY", "hold", "other.notes"]
backoff = "50ms"
max_restarts = 1000

[services.box]
image = "locald-test/shell:1"
entrypoint = ["/copy"]
command = ["hold", "/project/box.notes"]
volumes = ["$COPY:/copy:ro", ".:/project"]
backoff = "50ms"
max_restarts = 1000
`

// TestNemesis has clients do at random what people do, while faults at random
// strike. What each service is, what is on disk and what is answered has to
// hold together all the while, and all is as it was wanted once it is left in
// peace. LOCALD_TEST_NEMESIS is for how long; LOCALD_TEST_SEED makes the same
// choices again.
func TestNemesis(t *testing.T) {
	promise(t, "P4", "P5", "P9", "P10", "P11", "P14", "P15", "F19", "F21", "F22", "F24", "F26", "F27", "F42", "F44", "F46", "F59", "F63")
	lasts := world
	if text := os.Getenv("LOCALD_TEST_NEMESIS"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	until := time.Now().Add(lasts)
	seed := firstSeed(t)
	worlds, rounds := 0, 0
	for ; worlds == 0 || time.Until(until) >= world; worlds++ {
		ended := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { rounds += storm(t, seed) })
		if !ended {
			break
		}
		seed++
	}
	failures := 0
	if t.Failed() {
		failures = 1
	}
	tried(t, rounds, failures)
}

// firstSeed is that of LOCALD_TEST_SEED, or a new one; it is printed.
func firstSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LOCALD_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("LOCALD_TEST_SEED=%d", seed)
	fmt.Fprintf(os.Stderr, "%s: LOCALD_TEST_SEED=%d\n", t.Name(), seed) // also when it never ends
	return seed
}

// storm is one world from its beginning to its end. It returns the number of
// its rounds.
func storm(t *testing.T, seed uint64) (rounds int) {
	began := time.Now()
	w := newTempest(t, seed)
	// On a machine that is busy with something else all takes longer.
	w.quiet = max(quiet, 3*w.s.run("up").took)
	w.settled()
	for ; rounds == 0 || time.Since(began) < world-ending; rounds++ {
		w.round(min(stormy, max(time.Second, world-ending-time.Since(began))))
		if t.Failed() {
			return rounds
		}
	}
	t.Logf("%d rounds in %v: %s", rounds, time.Since(began).Round(time.Second), w.counts())
	return rounds
}

// tempest is a world and what happens in it.
type tempest struct {
	t        *testing.T
	s        *sandbox
	seed     uint64
	chance   *rand.Rand // of faults
	engine   *flakyEngine
	names    []string
	disk     string // the file that fills it; empty where no small disk can be had
	wasFull  bool
	stuck    bool // it did not become as it is wanted
	began    time.Time
	quiet    time.Duration
	canaries []bystander

	mu      sync.Mutex
	done    []done // of this round
	before  map[string]bool
	count   map[string]int
	journal []string
}

// bystander is somebody who has nothing to do with locald.
type bystander struct {
	pid   int
	notes string
}

// done is what a client asked, and what it was told.
type done struct {
	client      int
	call, ended time.Duration
	args        []string
	writes      []string // the services whose wish it is
	up          bool     // the wish
	sure        bool     // it was carried out; otherwise it may have been
	late        bool     // or may still be
	read        map[string]bool
	code        int
}

func newTempest(t *testing.T, seed uint64) *tempest {
	t.Helper()
	needEngine(t)
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &tempest{
		t: t, seed: seed, chance: rand.New(rand.NewPCG(seed, 0)), names: []string{"app", "box", "other", "worker"},
		began: time.Now(), before: map[string]bool{}, count: map[string]int{},
	}
	program, data := filepath.Join(root, "copy"), filepath.Join(root, "data")
	if err := build(program, "./testdata/copy"); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		smallDisk(t, data)
		w.disk = filepath.Join(data, "filler")
	}
	w.engine = newFlakyEngine(t)
	w.s = sandboxAt(t, root, data, strings.ReplaceAll(storming, "$COPY", program))
	w.s.reaches(w.engine)
	t.Cleanup(w.keep)
	for _, name := range w.names {
		w.before[name] = true
	}
	w.sing(root, program)
	go w.readState(t.Context())
	return w
}

// keep leaves the daemon's log and all that was done where it outlives the
// test, when the test has failed.
func (w *tempest) keep() {
	if !w.t.Failed() {
		return
	}
	if w.stuck {
		w.each(isDaemon, unix.SIGQUIT) // it writes into its log what it waits for
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("locald-nemesis-%d-", w.seed))
	if err != nil {
		w.t.Error(err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	journal := strings.Join(w.journal, "\n")
	files := map[string][]byte{"history": []byte(journal)}
	paths := []string{w.s.places().Log}
	for _, pattern := range []string{filepath.Join(w.s.dir, "*.notes"), filepath.Join(w.s.places().Dir, "projects", "*", "project.json")} {
		found, _ := filepath.Glob(pattern) // a pattern that is right
		paths = append(paths, found...)
	}
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil {
			files[filepath.Base(path)] = text
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Logf("LOCALD_TEST_SEED=%d; everything is kept in %s; what was done:\n%s", w.seed, dir, tail(journal, 150))
}

// note keeps a line for whoever wants to know what led to a failure.
func (w *tempest) note(kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count[kind]++
	w.journal = append(w.journal, fmt.Sprintf("%8.3f %-7s ", time.Since(w.began).Seconds(), kind)+fmt.Sprintf(format, args...))
}

func (w *tempest) violated(format string, args ...any) {
	w.note("BROKEN", format, args...)
	w.t.Errorf(format, args...)
}

func (w *tempest) counts() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var words []string
	for kind, n := range w.count {
		words = append(words, fmt.Sprintf("%s %d", kind, n))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// round is a storm, and the quiet after it.
func (w *tempest) round(lasts time.Duration) {
	ctx, end := context.WithTimeout(w.t.Context(), lasts)
	defer end()
	seeds := make([]uint64, clients)
	var asking sync.WaitGroup
	for i := range seeds {
		seeds[i] = w.chance.Uint64()
		asking.Go(func() {
			for chance := rand.New(rand.NewPCG(seeds[i], 0)); ctx.Err() == nil; {
				w.ask(ctx, i, chance)
			}
		})
	}
	w.faults(ctx)
	asking.Wait()
	w.settled()
}

// The services that a client asks for at random, and what it asks of them.
func (w *tempest) ask(ctx context.Context, client int, chance *rand.Rand) {
	name := w.names[chance.IntN(len(w.names))]
	one, all := []string{name}, w.names
	waits := []string{"--json", "--wait-timeout", "10s"}
	d := done{client: client}
	switch n := chance.IntN(100); {
	case n < 8:
		d.args, d.writes, d.up = append([]string{"up"}, waits...), all, true
	case n < 12:
		d.args, d.writes, d.up = append([]string{"up", name}, waits...), one, true
	case n < 15:
		d.args, d.writes, d.up = []string{"up", "-d", "--json"}, all, true
	case n < 28:
		d.args, d.writes, d.up = append([]string{"start", name}, waits...), one, true
	case n < 38:
		d.args, d.writes, d.up = append([]string{"restart", name}, waits...), one, true
	case n < 52:
		d.args, d.writes = []string{"stop", name, "--json"}, one
	case n < 58:
		d.args, d.writes = []string{"down", name, "--json"}, one
	case n < 61:
		d.args, d.writes = []string{"down", "--json"}, all
	case n < 82:
		d.args = []string{"status", "--json"}
	case n < 87:
		d.args = []string{"logs", "--json", "--tail", "20", name}
	case n < 92:
		d.args = []string{"logs", "--json", "-f", name}
		limited, cancel := context.WithTimeout(ctx, time.Duration(chance.IntN(1500))*time.Millisecond)
		defer cancel()
		ctx = limited
	case n < 96:
		d.args = []string{"env", name}
	default:
		d.args = []string{"exec", "-T", name, "--", "true"}
	}
	if len(d.writes) > 0 && chance.IntN(10) == 0 { // somebody types Ctrl-C
		limited, cancel := context.WithTimeout(ctx, time.Duration(chance.IntN(500))*time.Millisecond)
		defer cancel()
		ctx = limited
	}
	if stdout, ok := w.call(ctx, &d); ok {
		w.heard(&d, stdout)
	}
}

// call runs one command to its end, which comes soon when ctx has ended.
func (w *tempest) call(ctx context.Context, d *done) (stdout []byte, ok bool) {
	var out, errs bytes.Buffer
	cmd := w.s.command(ctx, d.args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) }
	cmd.WaitDelay = patience
	d.call = time.Since(w.began)
	err := cmd.Run()
	d.ended = time.Since(w.began)
	if cmd.ProcessState == nil { // there was no time left to start it
		return nil, false
	}
	d.code = cmd.ProcessState.ExitCode()
	said, _, _ := strings.Cut(strings.TrimSpace(errs.String()), "\n")
	w.note("client", "%d: %s: exit %d after %v %s", d.client, strings.Join(d.args, " "), d.code, (d.ended - d.call).Round(time.Millisecond), said)
	if took := d.ended - d.call; errors.Is(err, exec.ErrWaitDelay) || d.code == -1 && took > patience {
		w.violated("%v hangs: it took %v\n%s%s", d.args, took, out.String(), errs.String())
	}
	if d.code == 2 || strings.Contains(errs.String(), "goroutine ") || bytes.Contains(append(out.Bytes(), errs.Bytes()...), []byte(`"code":"internal"`)) {
		w.violated("%v: exit %d\n%s%s", d.args, d.code, out.String(), errs.String())
	}
	return out.Bytes(), true
}

// heard keeps what a command says of the services.
func (w *tempest) heard(d *done, stdout []byte) {
	switch {
	case len(d.writes) > 0:
		d.sure = d.code == 0 || d.code == 124
		d.late = d.code != 0 && d.code != 1 && d.code != 124
	case d.args[0] == "status" && (d.code == 0 || d.code == 3):
		var status ipc.Status
		if err := json.Unmarshal(stdout, &status); err != nil {
			w.violated("%v: %v: %s", d.args, err, stdout)
			return
		}
		d.read = map[string]bool{}
		for _, svc := range status.Services {
			d.read[svc.Name] = svc.Desired == "up"
		}
	case d.args[0] == "logs":
		w.contiguous(d.args, bytes.NewReader(stdout))
		return
	default:
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, *d)
}

// faults strike until the round is over, and are then all mended.
func (w *tempest) faults(ctx context.Context) {
	mending := map[string]func(){}
	var due []string // what lasts, by the time at which it ends
	ends := map[string]time.Time{}
	mend := func(name string) {
		mending[name]()
		w.note("mended", "%s", name)
		delete(mending, name)
		due = slices.DeleteFunc(due, func(other string) bool { return other == name })
	}
	defer func() {
		for _, name := range slices.Clone(due) {
			mend(name)
		}
	}()
	for next := time.Now(); ; {
		next = next.Add(time.Duration(100+w.chance.IntN(900)) * time.Millisecond)
		for { // until the next one is due
			at := next
			if len(due) > 0 && ends[due[0]].Before(next) {
				at = ends[due[0]]
			}
			timer := time.NewTimer(time.Until(at))
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			if at.Equal(next) {
				break
			}
			mend(due[0])
		}
		name, lasts := w.pick(), time.Duration(200+w.chance.IntN(1800))*time.Millisecond
		if mending[name] != nil {
			continue
		}
		w.note("fault", "%s", name)
		if heal := w.strike(name); heal != nil {
			mending[name], ends[name] = heal, time.Now().Add(lasts)
			due = append(due, name)
			slices.SortFunc(due, func(a, b string) int { return ends[a].Compare(ends[b]) })
		}
	}
}

func (w *tempest) pick() string {
	all := []string{
		"kill daemon", "kill keeper", "kill both", "stop daemon", "engine refuses", "engine hangs", "engine cuts", "remove container", "fork storm",
	}
	if w.disk != "" {
		all = append(all, "disk full")
	}
	return all[w.chance.IntN(len(all))]
}

// strike does something bad, and returns what mends it when it lasts.
func (w *tempest) strike(name string) (mend func()) {
	switch name {
	case "kill daemon":
		w.each(isDaemon, unix.SIGKILL)
	case "kill keeper":
		w.each(isKeeper, unix.SIGKILL)
	case "kill both":
		w.each(func(p process) bool { return isDaemon(p) || isKeeper(p) }, unix.SIGKILL)
	case "stop daemon":
		w.each(isDaemon, unix.SIGSTOP)
		return func() { w.each(isDaemon, unix.SIGCONT) }
	case "engine refuses":
		w.engine.vanish()
		return w.engine.appear
	case "engine hangs":
		w.engine.gate.Lock()
		return w.engine.gate.Unlock
	case "engine cuts":
		w.engine.cut()
	case "remove container":
		for id := range strings.FieldsSeq(w.s.docker("container", "ls", "-aq", "--filter", "label=dev.locald.instance="+w.s.instance())) {
			_ = exec.Command("docker", "rm", "-f", id).Run() // locald may be quicker
		}
	case "fork storm":
		w.each(func(p process) bool { return strings.Contains(p.argv, "hold") && p.env["LOCALD_SERVICE"] == "app" }, unix.SIGUSR1)
	case "disk full":
		fill(w.t, w.disk)
		w.wasFull = true
		return func() {
			if err := os.Remove(w.disk); err != nil {
				w.t.Error(err)
			}
		}
	}
	return nil
}

func isKeeper(p process) bool { return strings.HasPrefix(p.argv, "locald keeper") }

func isDaemon(p process) bool {
	return strings.Contains(p.argv, " server start") && !strings.Contains(p.argv, "--daemonize")
}

// each sends a signal to every process of ours that is one of these.
func (w *tempest) each(is func(process) bool, sig unix.Signal) {
	for _, p := range w.s.processes() {
		if !is(p) {
			continue
		}
		fd, err := unix.PidfdOpen(p.pid, 0)
		if err != nil {
			continue // it has ended
		}
		if slices.ContainsFunc(w.s.processes(), func(again process) bool { return again.pid == p.pid && is(again) }) {
			_ = unix.PidfdSendSignal(fd, sig, nil, 0) // it may just have ended
		}
		_ = unix.Close(fd)
	}
}

// settled waits until all is as it is wanted, and proves it.
func (w *tempest) settled() {
	began := time.Now()
	w.stuck = true
	w.s.run("server", "start", "--daemonize")
	w.s.until("as it is wanted", func(status ipc.Status) bool {
		w.note("status", "%s", brief(status))
		return settled(status) && len(status.Services) == len(w.names) && w.s.inEngine(status)
	})
	w.stuck = false
	took := time.Since(began)
	w.note("settled", "after %v", took.Round(time.Millisecond))
	if took > w.quiet {
		w.violated("it took %v until all was as it is wanted, want %v", took, w.quiet)
	}
	at := time.Since(w.began)
	var status ipc.Status
	r := w.s.try("status", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &status); err != nil || r.code != 0 && r.code != 3 { // 3: all is down
		w.t.Fatalf("status: %v: %v", err, r)
	}
	w.s.exactly(status)
	last := done{client: clients, call: at, ended: time.Since(w.began), args: []string{"status"}, read: map[string]bool{}}
	for _, svc := range status.Services {
		last.read[svc.Name] = svc.Desired == "up"
	}
	w.linearizable(last)
	for _, name := range w.names {
		w.once(name)
		w.whole(name)
	}
	w.canariesSing()
}

func brief(status ipc.Status) string {
	words := []string{fmt.Sprintf("daemon %d", status.Daemon.PID)}
	for _, svc := range status.Services {
		words = append(words, strings.TrimSpace(fmt.Sprintf("%s: %s, %s, run %d %s", svc.Name, svc.Desired, svc.State, svc.Run, svc.Reason)))
	}
	return strings.Join(words, "; ")
}

// once proves that no two copies of a service overlapped, and that each had a
// run of its own. A number that could not be written, because the disk was
// full, is given again after a crash.
func (w *tempest) once(name string) {
	w.s.starts(name + ".notes")
	last := 0
	for _, line := range w.s.notes(name + ".notes") {
		words := strings.Fields(line)
		if len(words) != 3 || words[0] != "run" {
			continue
		}
		n := number(w.t, words[1])
		if n <= last && !w.wasFull {
			w.violated("%s: run %d was started after run %d", name, n, last)
		}
		last = n
	}
}

// whole reads all of a service's log.
func (w *tempest) whole(name string) {
	args := []string{"logs", "--json", "--tail", "all", "--since", "1h", name}
	r := w.s.run(args...)
	w.contiguous(args, strings.NewReader(r.stdout))
}

// near is how far a sentence about missing lines may be from where they are
// missing.
const near = 5 * time.Second

// contiguous proves that lines are numbered without a hole, and that what a
// copy of a service counts has none, unless the log says so.
func (w *tempest) contiguous(args []string, lines io.Reader) {
	var seq uint64
	counts := map[int]int{} // by copy
	var holes []string
	var at, told []time.Time
	for decoder := json.NewDecoder(lines); ; {
		var line ipc.LogLine
		if err := decoder.Decode(&line); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		} else if err != nil {
			w.violated("%v: %v", args, err)
			return
		}
		if seq != 0 && line.Seq != seq+1 {
			w.violated("%v: line %d came after line %d: %+v", args, line.Seq, seq, line)
		}
		seq = line.Seq
		var copied, n int
		switch _, err := fmt.Sscanf(line.Line, "count %d %d", &copied, &n); {
		case line.Stream == "gap":
			clear(counts)
		case line.Stream == "event" && strings.Contains(line.Line, "may be missing"):
			told = append(told, line.Time)
		case err == nil && !line.Partial:
			if last := counts[copied]; last != 0 && n != last+1 {
				holes, at = append(holes, fmt.Sprintf("run %d: count %d came after %d: %+v", line.Run, n, last, line)), append(at, line.Time)
			}
			counts[copied] = n
		}
	}
	if !slices.Contains(args, "all") {
		return // what is said of a hole may come earlier, or later
	}
	for i, hole := range holes {
		if !slices.ContainsFunc(told, func(t time.Time) bool { return t.Sub(at[i]).Abs() < near }) {
			w.violated("%v: nothing is said to be missing: %s", args, hole)
		}
	}
}

// linearizable proves that what was asked and answered in this round could have
// come of one thing after another, for each service.
func (w *tempest) linearizable(last done) {
	w.mu.Lock()
	all := append(w.done, last)
	w.done = nil
	w.mu.Unlock()
	for _, name := range w.names {
		history := historyOf(name, all)
		result, _ := porcupine.CheckOperationsVerbose(wish(w.before[name]), history, limit)
		if result != porcupine.Ok {
			w.violated("%s: no order of what was asked explains what was answered (%v):\n%s", name, result, listed(history))
		}
		w.before[name] = last.read[name]
	}
}

// asked is one call as far as one service goes.
type asked struct {
	write, up, sure bool
}

func historyOf(name string, all []done) []porcupine.Operation {
	var history []porcupine.Operation
	for _, d := range all {
		op := porcupine.Operation{ClientId: d.client, Call: int64(d.call), Return: int64(d.ended)}
		value, read := d.read[name]
		switch {
		case slices.Contains(d.writes, name):
			op.Input = asked{write: true, up: d.up, sure: d.sure}
			if d.late { // it counts from now until the end
				op.Return = int64(all[len(all)-1].call)
			}
		case read:
			op.Input = asked{up: value}
		default:
			continue
		}
		history = append(history, op)
	}
	return history
}

func listed(history []porcupine.Operation) string {
	var b strings.Builder
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, op := range history {
		fmt.Fprintf(&b, "%8.3f to %8.3f client %d: %+v\n", time.Duration(op.Call).Seconds(), time.Duration(op.Return).Seconds(), op.ClientId, op.Input)
	}
	return b.String()
}

// wish is what is wanted of one service: whatever was asked last.
func wish(before bool) porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{before} },
		Step: func(state, input, _ any) []any {
			switch op := input.(asked); {
			case op.write && op.sure:
				return []any{op.up}
			case op.write:
				return []any{state, op.up}
			case op.up == state:
				return []any{state}
			}
			return nil
		},
	}
	return model.ToModel()
}

// readState proves all the while that every file of the state directory is
// whole.
func (w *tempest) readState(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, path := range w.s.stateFiles() {
			text, err := os.ReadFile(path)
			if filepath.Ext(path) == ".jsonl" {
				text = text[:bytes.LastIndexByte(text, '\n')+1] // a line may be on its way
			}
			if err == nil && !intact(path, text) {
				w.violated("%s: %q", path, text)
			}
		}
	}
}

// sing starts the canaries: one is a process like many, one says that it is of
// another daemon, one is a container.
func (w *tempest) sing(root, program string) {
	for i, mark := range []string{"NOBODY=1", "LOCALD_MARK=other/app/1 other", "LOCALD_SERVICE=app"} {
		c := bystander{notes: filepath.Join(root, fmt.Sprintf("canary%d", i))}
		cmd := exec.Command(program, "canary", c.notes)
		cmd.Env, cmd.SysProcAttr = append(os.Environ(), mark), &syscall.SysProcAttr{Setsid: i > 0}
		if err := cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // ended by us
		})
		c.pid = cmd.Process.Pid
		w.canaries = append(w.canaries, c)
	}
	id := strings.TrimSpace(w.s.docker("run", "-d", "--init", "--label", "dev.locald.service=app", "-v", program+":/copy:ro",
		"--entrypoint", "/copy", shellImage, "canary", "/tmp/canary"))
	w.t.Cleanup(func() { w.s.docker("rm", "-f", id) })
	w.canaries = append(w.canaries, bystander{notes: id})
}

func (w *tempest) canariesSing() {
	for _, c := range w.canaries {
		song := ""
		if c.pid == 0 {
			song = w.s.docker("exec", c.notes, "cat", "/tmp/canary")
		} else if text, err := os.ReadFile(c.notes); err != nil {
			w.t.Error(err)
		} else if song = string(text); unix.Kill(c.pid, 0) != nil {
			w.violated("canary %d is dead", c.pid)
		}
		if song != "sings\n" {
			w.violated("canary %v: %s", c, song)
		}
	}
}
