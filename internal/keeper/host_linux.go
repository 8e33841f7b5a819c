package keeper

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/fork"
	"github.com/locald/locald/internal/wire"
)

// Main is the hidden command "locald keeper": it serves the daemon at the other
// end of descriptor 3 until that ends, stops what runs, and returns the exit
// status. Only Start may call for it.
func Main(args []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("room", "keeper")
	if len(args) != 0 {
		log.Error("keeper takes no arguments; it is started by the daemon")
		return 2
	}
	file := os.NewFile(connDescriptor, "daemon")
	conn, err := unixConn(file)
	if err != nil {
		log.Error("keeper is started by the daemon only", "cause", err)
		return 2
	}
	_ = file.Close()
	// Held open for life: it carries the lock.
	unix.CloseOnExec(lockDescriptor)
	closeInherited()
	if err := serve(wire.New(conn), log); err != nil {
		log.Error("keeper", "cause", err)
		return 1
	}
	return 0
}

// writeRest does the writes that are waiting.
func (h *host) writeRest() {
	for {
		select {
		case write := <-h.writes:
			write()
		default:
			return
		}
	}
}

// closeInherited closes what locald was started with beside the standard
// descriptors: it is no business of a service, and whoever waits for its end
// would wait for the keeper. What this program opened itself is marked.
func closeInherited() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd < connDescriptor {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
}

// host is the keeper's own process.
type host struct {
	wire   *wire.Conn
	log    *slog.Logger
	stores *stores
	null   *os.File
	nested string // the mark that the keeper itself inherited
	room   uint64 // the RLIMIT_NPROC of services; 0 leaves it
	scores scores
	kills  oomKills
	writes chan func()
	quit   chan struct{}  // closed when nothing is left to keep
	aside  sync.WaitGroup // what goes on until then
	groups *groups        // nil where there are none
	limits *limiter       // nil where there are to be none
	ledger *ledger        // nil where it cannot be kept

	// forking makes forks serial, so that each run has a number of its own.
	forking sync.Mutex
	numbers numbers
	starter *fork.Starter // nil where the kernel has not what it needs

	// mu guards what follows and every wait4. A child of ours keeps its PID until
	// it is reaped, so while mu is held the PID of a child can be signalled
	// without asking whose it is.
	mu      sync.Mutex
	owner   string
	runs    map[uint64]*run // by request, those that are not gone
	mains   map[int]*run    // by PID, those that are not reaped
	forks   int             // children being made whose PID is not known yet
	threads []int           // that have forked
	early   map[int]reaped  // reaped while a fork was under way
	turns   chan struct{}   // closed when something was reaped
	forked  chan struct{}   // holds a token when there is a child again
}

type reaped struct {
	status unix.WaitStatus
	at     time.Time
}

// errLeft makes the exit status say what stopAll has told in words.
var errLeft = errors.New("processes are left")

func serve(w *wire.Conn, log *slog.Logger) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	starter, err := fork.New() // while the lowest descriptors are free
	if err != nil {
		return err
	}
	quit := make(chan struct{})
	drop := dispositions()
	go swallow(drop, quit)
	reserveThreads()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	h := &host{
		wire: w, log: log, null: null, starter: starter, nested: os.Getenv(Variable), room: processRoom(), scores: newScores(), writes: make(chan func(), 4096), quit: quit,
		runs: map[uint64]*run{}, mains: map[int]*run{}, early: map[int]reaped{}, turns: make(chan struct{}), forked: make(chan struct{}, 1),
	}
	go h.reapAll()
	written := make(chan struct{})
	go func() {
		defer close(written)
		for {
			select {
			case write := <-h.writes:
				write()
			case <-quit:
				h.writeRest()
				return
			}
		}
	}()
	err = h.listen()
	h.stopAll()
	left := h.sweepRest()
	if left {
		err = errors.Join(err, errLeft)
	}
	close(quit)
	<-written
	h.aside.Wait()
	h.groups.close()
	h.limits.close()
	err = errors.Join(err, h.ledger.close(left))
	if h.stores != nil {
		err = errors.Join(err, h.stores.close())
	}
	return err
}

// dispositions sees to it that services start with every signal at its default.
// A signal that is handled here is reset by exec, one that is ignored would be
// ignored there too.
func dispositions() chan os.Signal {
	drop := make(chan os.Signal, 1)
	for n := unix.SIGHUP; n < 32; n++ {
		switch n {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPROF,
			unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS:
			// not to be caught, used by Go itself, or a crash of ours
		default:
			signal.Notify(drop, n)
		}
	}
	restoreInternal()
	return drop
}

// restoreInternal puts back to their default the signals that C libraries keep
// for themselves and Go leaves alone: a program that was started by the
// posix_spawn of one, as by make, has them ignored.
func restoreInternal() {
	const first, last, size = 32, 64, 8
	type action struct { // the kernel's, which needs no more to be set than the default
		handler, flags, restorer, mask uintptr
	}
	const ignored = 1
	for n := uintptr(first); n <= last; n++ {
		var now, byDefault action
		_, _, failed := unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, 0, uintptr(unsafe.Pointer(&now)), size, 0, 0)
		if failed == 0 && now.handler == ignored {
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&byDefault)), 0, size, 0, 0)
		}
	}
}

func swallow(drop <-chan os.Signal, quit <-chan struct{}) {
	for {
		select {
		case <-drop:
		case <-quit:
			return
		}
	}
}

// listen carries out requests until the connection ends.
func (h *host) listen() error {
	for {
		var r request
		if err := receiveRequest(h.wire, &r); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return err
		}
		fds, err := h.wire.Take(r.Files)
		if err != nil {
			return err
		}
		if h.stores == nil && r.Open == nil {
			return fmt.Errorf("request %d before the first", r.ID)
		}
		h.begin(r, fds)
	}
}

// begin starts what a request asks. Requests that are answered late run beside
// each other.
func (h *host) begin(r request, fds []int) {
	switch {
	case r.Open != nil:
		h.open(r.Open)
	case r.Run != nil:
		go h.answerRun(r.ID, r.Run, fds)
		return
	case r.Stop != nil:
		go func() { h.say(answer{ID: r.ID, Left: h.stopChild(r.Stop)}) }()
		return
	case r.Stream != nil && len(fds) == 2:
		h.stores.adopt(string(r.Stream.Log), r.Stream.Number, fds)
		return
	case r.Flush != nil:
		go func() {
			written := make(chan struct{})
			h.writes <- func() { close(written) }
			<-written
			h.stores.flush(string(r.Flush.Log), r.Flush.Number)
			h.say(answer{ID: r.ID})
		}()
	case r.Note != nil:
		h.later(r.Note)
	case r.Keep != nil:
		h.stores.retain(string(r.Keep.Dir), r.Keep.Logs)
	}
	closeAll(fds)
}

// later stores a note in its turn. A disk that hangs must not keep a stop from
// being read.
func (h *host) later(n *noteRequest) {
	select {
	case h.writes <- func() { h.stores.note(string(n.Log), n.Number, n.Text, n.Time) }:
	default:
		h.log.Warn("event is not stored: too many wait", "dir", string(n.Log), "event", n.Text)
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func (h *host) open(o *openRequest) {
	h.owner = o.Owner
	h.stores = newStores(o.Logs, h.log, func(news storeNews) { h.say(answer{Store: &news}) })
	if limit, ok := lockLimit(os.Getpid()); ok {
		var drawn [1]byte
		_, _ = rand.Read(drawn[:])
		h.numbers = newNumbers(o.Owner, limit, drawn[0], setLockLimit)
	}
	// No two keepers of one boot have the same name.
	name := fmt.Sprintf("%d-%d", os.Getpid(), ticks())
	if !o.NoGroups {
		h.groups = makeGroups(o.Owner, name)
		h.limits = newLimiter(groupOfKeeper(o.Owner, name), h.groups)
	}
	// Before the first run: its group must be found whatever happens.
	l := h.openLedger(string(o.Dir), name)
	h.mu.Lock()
	h.ledger = l
	h.mu.Unlock()
	if l != nil {
		h.aside.Go(func() { l.keep(h.quit) })
	}
}

func (h *host) say(a answer) {
	// A daemon that does not listen any more is found by listen.
	_ = h.wire.Send(a)
}

func (h *host) answerRun(id uint64, r *runRequest, given []int) {
	started, err := h.start(id, r, given)
	closeAll(given)
	if err != nil {
		h.say(answer{ID: id, Error: err})
		return
	}
	h.say(answer{ID: id, PID: started.pid, Thread: started.thread, Number: started.mark.Number})
}

// start forks a run. When it returns no error the program is being executed.
func (h *host) start(id uint64, q *runRequest, given []int) (*run, *Error) {
	argv, env := strings.Split(string(q.Argv), "\x00"), environment(q.Env)
	path, e := find(argv[0], string(q.Dir), env)
	if e != nil {
		return nil, e
	}
	r := &run{
		id: id, mark: Mark{Owner: h.owner, Run: q.Run}, signal: unix.Signal(q.Signal), grace: q.Grace,
		poke: make(chan struct{}, 1), verdict: newVerdict(), log: string(q.Log), number: q.Number, oom: h.kills.lately(),
	}
	fds := [3]uintptr{h.null.Fd(), h.null.Fd(), h.null.Fd()}
	switch {
	case len(given) == 2:
		fds[1], fds[2] = uintptr(given[0]), uintptr(given[1])
	case r.log != "":
		pipes, err := h.stores.pipes(r.log, r.number, func(at time.Time) { h.ledger.wrote(r, at) })
		if err != nil {
			return nil, &Error{Code: "internal", Message: fmt.Sprintf("pipe: %v", err)}
		}
		defer pipes.closeWrite()
		fds[1], fds[2] = uintptr(pipes.write[0]), uintptr(pipes.write[1])
		r.streams = pipes.streams
	}
	err := h.fork(r, path, argv, string(q.Dir), append(env, r.mark.variable(h.nested)), fds, q)
	if err != nil {
		for _, s := range r.streams {
			s.discard()
		}
		var limited *Error
		if errors.As(err, &limited) {
			return nil, limited
		}
		if q.Unprivileged && executable(path) == nil && checkDir(string(q.Dir)) == nil && os.Geteuid() == 0 {
			return nil, &Error{Code: "internal", Message: fmt.Sprintf("command %s: in a user namespace: %v", path, err), Hint: "sysctl user.max_user_namespaces"}
		}
		return nil, explain(argv[0], path, string(q.Dir), env, err)
	}
	return r, nil
}

func environment(joined []byte) []string {
	var env []string
	if len(joined) > 0 {
		env = strings.Split(string(joined), "\x00")
	}
	kept := env[:0]
	for _, entry := range env {
		if !strings.HasPrefix(entry, Variable+"=") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// fork makes the process and registers it before anybody can take its end for
// that of a stranger.
func (h *host) fork(r *run, path string, argv []string, dir string, env []string, fds [3]uintptr, q *runRequest) error {
	attr := &unixProcAttr{Dir: dir, Env: env, Files: fds[:], Sys: &unix.SysProcAttr{Setsid: true}}
	if q.Unprivileged && os.Geteuid() == 0 {
		asNobody(attr.Sys)
	}
	h.forking.Lock()
	defer h.forking.Unlock()
	number, done := h.numbers.next()
	defer done()
	r.mark.Number, r.born = number, ticks()
	if q.Limits != nil {
		var err error
		if r.bounds, err = h.limits.make(q.Limits, number); err != nil {
			return err
		}
		defer func() {
			r.bounds.close()
			if r.pid == 0 {
				r.bounds.remove()
			}
		}()
		for _, f := range r.bounds.given {
			attr.Files = append(attr.Files, f.Fd())
		}
	}
	h.mu.Lock()
	h.forks++
	h.mu.Unlock()
	lent := h.scores.lend()
	pid, err := h.forkWithRoom(r, path, argv, attr)
	lent()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forks--
	if err == nil {
		r.pid = pid
		if !slices.Contains(h.threads, r.thread) {
			h.threads = append(h.threads, r.thread)
		}
		h.runs[r.id] = r
		h.mains[pid] = r
		leaveRoom(pid, h.room)
		h.ledger.stir(r)
		if e, ok := h.early[pid]; ok {
			h.ended(r, e)
		}
	}
	clear(h.early) // forks are serial, so this was the only one under way
	select {
	case h.forked <- struct{}{}:
	default:
	}
	return err
}

// forkWithRoom forks a process that has the limit of services from its first
// instruction on. Where the services have all of that, it is forked out of what
// is spared, and limited right after.
func (h *host) forkWithRoom(r *run, path string, argv []string, attr *unixProcAttr) (int, error) {
	took := lendRoom(h.room)
	pid, err := h.forkGrouped(r, path, argv, attr)
	took()
	if errors.Is(err, unix.EAGAIN) && h.room != 0 {
		return h.forkGrouped(r, path, argv, attr)
	}
	return pid, err
}

// forkGrouped forks into a control group of the run's own where there can be
// one.
func (h *host) forkGrouped(r *run, path string, argv []string, attr *unixProcAttr) (int, error) {
	if h.groups == nil || r.mark.Number == 0 {
		return h.forkExec(r, path, argv, attr)
	}
	g, fd, err := h.groups.make(r)
	if err != nil {
		return h.forkExec(r, path, argv, attr)
	}
	defer unix.Close(fd)
	attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
	pid, err := h.forkExec(r, path, argv, attr)
	if err == nil {
		r.group = g
		return pid, nil
	}
	g.remove()
	if r.bounds != nil && r.bounds.program != "" {
		return 0, err // without the group there are no limits
	}
	// The program may be at fault, or the group: that shows without it.
	attr.Sys.UseCgroupFD = false
	pid, again := h.forkExec(r, path, argv, attr)
	if again == nil {
		h.log.Warn("control groups are not used", "cause", err)
		h.groups.close()
		h.groups = nil
	}
	return pid, again
}

// reapAll reaps what ends, until quit. It waits in the kernel: a SIGCHLD passes
// through a handler and three goroutines, which takes a third of a millisecond.
func (h *host) reapAll() {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.ECHILD {
			select {
			case <-h.forked:
				continue
			case <-h.quit:
				return
			}
		}
		select {
		case <-h.quit:
			return
		default:
			h.reap()
		}
	}
}

// reap takes in whatever has ended, and wakes those who wait for an end.
func (h *host) reap() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reapLocked()
}

func (h *host) reapLocked() {
	some := false
	var over []*run
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			break
		}
		some = true
		e := reaped{status, time.Now()}
		if r := h.mains[pid]; r != nil {
			h.ended(r, e)
			over = append(over, r)
		} else if h.forks > 0 {
			h.early[pid] = e
		}
	}
	if len(over) > 0 && len(h.adopted()) == 0 {
		for _, r := range over {
			r.clean = true
		}
	}
	if some {
		h.ledger.stir(nil)
		close(h.turns)
		h.turns = make(chan struct{})
	}
}

// ended notes the end of a main process.
func (h *host) ended(r *run, e reaped) {
	delete(h.mains, r.pid)
	delete(h.early, r.pid)
	r.reaped = true
	r.exit.At = e.at
	if e.status.Signaled() {
		r.exit.Signal = unix.SignalName(e.status.Signal())
		r.exit.Code = 128 + int(e.status.Signal())
	} else {
		r.exit.Code = e.status.ExitStatus()
	}
	r.exit.Memory = r.memoryKill(e.status, &h.kills)
	if !r.ending {
		r.ending = true
		go h.end(r)
	}
}

// stopAll stops every run within its own grace, and returns when each is gone
// or is known to survive.
func (h *host) stopAll() {
	// A fork that is under way is registered before the lock is free, and as the
	// lock is kept there is no other.
	h.forking.Lock()
	h.mu.Lock()
	var all []*run
	for _, r := range h.runs {
		all = append(all, r)
	}
	h.mu.Unlock()
	var stops sync.WaitGroup
	for _, r := range all {
		stops.Go(func() {
			for _, s := range h.stop(r, r.grace) {
				h.log.Error("still running", "run", r.mark.Run, "process", s.PID, "cause", s.Reason)
			}
		})
	}
	stops.Wait()
}

// sweepRest ends what no run claimed, until the kernel says that we have no
// child any more, and reports whether something is left.
func (h *host) sweepRest() (left bool) {
	until := time.Now().Add(linger)
	for time.Now().Before(until) {
		h.reap()
		if childless() {
			return false
		}
		h.mu.Lock()
		for _, pid := range ourChildren() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		h.mu.Unlock()
		h.pause(5 * time.Millisecond)
	}
	return true
}

// childless reports whether this process has no child of any kind, ended or not.
func childless() bool {
	return unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil) == unix.ECHILD
}

func (h *host) stopChild(s *stopRequest) []Survivor {
	h.mu.Lock()
	r := h.runs[s.Child]
	h.mu.Unlock()
	if r == nil {
		return nil
	}
	return h.stop(r, s.Grace)
}
