package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/wire"
)

// Options say how a keeper is started.
type Options struct {
	Command []string  // argv of the keeper; empty is this program with the argument "keeper"
	Dir     string    // the state directory, where the keeper's lock is
	Owner   string    // marks every process; without commas
	Log     *os.File  // where the keeper writes what goes wrong; nil is /dev/null
	Logs    Retention // of the log stores

	// Trouble, if not nil, is told why what is written for a log store cannot be
	// stored, and with an empty cause that it can again, or that the keeper which
	// said so is gone. It must not call the Keeper.
	Trouble func(log, cause string)

	// NoGroups makes the keeper use no control groups where it could.
	NoGroups bool
}

// Groups is the environment variable that, when it is "off" where Start is
// called, makes keepers use no control groups. It is for trying the layers
// below.
const Groups = "LOCALD_CGROUPS"

// Retention says how much the log stores keep. Stores that share a parent
// directory, the services of a project, share Bytes and Age. Zero is no limit,
// and for SegmentBytes what internal/logs takes.
type Retention struct {
	SegmentBytes int64
	Bytes        int64
	Age          time.Duration
}

// Run is one process to start.
type Run struct {
	ID     string   // marks the processes; names one run for ever
	Number int      // of the run, in the log store
	Argv   []string // Argv[0] without a slash is looked up in the PATH of Env
	Dir    string   // absolute; relative names in Argv[0] and PATH are relative to it
	Env    []string // complete; the mark is added
	Log    string   // the log store that takes stdout and stderr; empty discards them

	// Stdout and Stderr, both or neither, are given to the process in place of
	// Log. The caller keeps its own copies.
	Stdout, Stderr *os.File

	StopSignal string        // asks it to end; empty is SIGTERM
	Grace      time.Duration // what it has after StopSignal when the daemon is gone

	// Unprivileged puts the process into a user namespace in which root, and only
	// root, is user nobody (65534), which has a name everywhere: initdb asks for
	// its own. Nothing happens when locald does not run as root.
	Unprivileged bool

	Limits *Limits // nil limits nothing
}

// Limits is what a run may use at most; zero is no limit. They do not hold for
// its main process, but for what that starts in the control groups that it is
// given, as descriptors from 3 on: of version 2 the directory of one to fork
// into, of version 1 for each controller the file to which a thread writes 0 to
// go there. A limit of memory or CPUs that cannot be had is an *Error.
type Limits struct {
	Memory int64   `json:"memory,omitempty"` // bytes
	CPUs   float64 `json:"cpus,omitempty"`
	PIDs   int64   `json:"pids,omitempty"` // processes and threads; where that cannot be limited it is not
}

// Exit says how the main process of a run ended.
type Exit struct {
	Code   int       `json:"code"`             // 128+n when a signal ended it
	Signal string    `json:"signal,omitempty"` // "SIGKILL"
	At     time.Time `json:"at"`
	Forced bool      `json:"forced,omitempty"` // by the keeper, because it had not ended within its grace
	Left   int       `json:"left,omitempty"`   // processes that were there when the main one had ended by itself
	Memory string    `json:"memory,omitempty"` // "yes" or "probably" when the kernel killed it to have memory, "part" when something that it started
}

// Survivor is a process that could not be ended, and why.
type Survivor struct {
	PID    int    `json:"pid"`
	Reason string `json:"reason"` // "uninterruptible in fuse_wait", "belongs to root"
}

// SurvivorsError is the error of a stop that could not end everything.
type SurvivorsError struct{ Left []Survivor }

func (e *SurvivorsError) Error() string {
	words := make([]string, len(e.Left))
	for i, l := range e.Left {
		words[i] = fmt.Sprintf("process %d: %s", l.PID, l.Reason)
	}
	return "still running: " + strings.Join(words, "; ")
}

// Error is why a run could not be started.
type Error struct {
	// Code is "command_missing", "workdir_missing", "permission_denied" or
	// "config_invalid" when another try would end the same, else "internal".
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // something to type, or empty
}

func (e *Error) Error() string { return e.Message }

// ErrLost is wrapped by what fails because the keeper is gone.
var ErrLost = errors.New("keeper is gone")

// Keeper is the daemon's connection to its keeper. Methods may be called
// concurrently.
type Keeper struct {
	owner   string
	pid     int
	wire    *wire.Conn
	orphans *orphans
	trouble func(log, cause string)
	lost    chan struct{}
	clean   bool // the keeper left by itself and has left nothing; valid once lost

	mu       sync.Mutex
	last     uint64
	waiting  map[uint64]chan answer
	children map[uint64]*Child
}

// Start starts a keeper and waits for nothing but the fork. Cancelling ctx
// later does nothing. This process becomes a subreaper, and reaps the children
// that it did not start; those that it does start it has to start with os/exec.
func Start(ctx context.Context, o Options) (*Keeper, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkOwner(o.Owner); err != nil {
		return nil, err
	}
	left := adoptOrphans(o.Owner)
	conn, pid, ended, err := spawn(o)
	if err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	k := &Keeper{
		owner: o.Owner, pid: pid, wire: wire.New(conn), orphans: left, trouble: o.Trouble, lost: make(chan struct{}),
		waiting: map[uint64]chan answer{}, children: map[uint64]*Child{},
	}
	left.begin(pid)
	go left.reapWhile(k.lost)
	go k.listen(ended)
	if err := k.wire.Send(request{Open: &openRequest{Owner: o.Owner, Dir: []byte(o.Dir), Logs: o.Logs, NoGroups: o.NoGroups || os.Getenv(Groups) == "off"}}); err != nil {
		return nil, fmt.Errorf("keeper: %w", errors.Join(err, conn.Close()))
	}
	reserveThreads() // before the first run, and while the keeper comes
	return k, nil
}

// PID is the keeper's own process.
func (k *Keeper) PID() int { return k.pid }

// Owner is what Options said.
func (k *Keeper) Owner() string { return k.owner }

// Lost is closed when the keeper has ended, for whatever reason. What its runs
// left is then found by Find.
func (k *Keeper) Lost() <-chan struct{} { return k.lost }

// Clean reports whether the keeper has ended by itself after it had seen that
// nothing is left of any of its runs. As long as it lived, whatever they started
// was below it, so there is nothing to look for anywhere else.
func (k *Keeper) Clean() bool {
	select {
	case <-k.lost:
		return k.clean
	default:
		return false
	}
}

// listen distributes answers until the connection ends, and then waits for the
// end of the process, so that Lost means both.
func (k *Keeper) listen(ended <-chan bool) {
	troubled := map[string]bool{}
	for {
		var a answer
		if k.wire.Receive(&a) != nil {
			break
		}
		if a.Store != nil {
			k.hearOf(troubled, string(a.Store.Log), a.Store.Cause)
			continue
		}
		k.mu.Lock()
		if a.Gone != nil {
			if c := k.children[a.ID]; c != nil {
				delete(k.children, a.ID)
				c.exit = *a.Gone
				close(c.done)
			}
		} else if ch := k.waiting[a.ID]; ch != nil {
			delete(k.waiting, a.ID)
			ch <- a
		}
		k.mu.Unlock()
	}
	_ = k.wire.Close()
	for log := range troubled {
		k.hearOf(troubled, log, "")
	}
	k.clean = <-ended
	close(k.lost)
}

func (k *Keeper) hearOf(troubled map[string]bool, log, cause string) {
	if cause != "" {
		troubled[log] = true
	} else {
		delete(troubled, log)
	}
	if k.trouble != nil {
		k.trouble(log, cause)
	}
}

// begin numbers a request and sends it.
func (k *Keeper) begin(r request, c *Child, files ...*os.File) (uint64, <-chan answer, error) {
	ch := make(chan answer, 1)
	k.mu.Lock()
	k.last++
	r.ID, r.Files = k.last, len(files)
	k.waiting[r.ID] = ch
	if c != nil {
		c.id = r.ID
		k.children[r.ID] = c
	}
	k.mu.Unlock()
	if err := sendRequest(k.wire, r, files...); err != nil {
		k.forget(r.ID)
		return 0, nil, fmt.Errorf("%w: %w", ErrLost, err)
	}
	return r.ID, ch, nil
}

func (k *Keeper) forget(id uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.waiting, id)
	delete(k.children, id)
}

func (k *Keeper) answer(ctx context.Context, ch <-chan answer) (answer, error) {
	select {
	case a := <-ch:
		if a.Error != nil {
			return a, a.Error
		}
		return a, nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-k.lost:
		return answer{}, ErrLost
	}
}

// Run starts a process and returns once it executes its program. An *Error says
// why it does not. Cancelling ctx before Run has returned leaves nothing
// behind.
func (k *Keeper) Run(ctx context.Context, r Run) (*Child, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	wired, err := r.request()
	if err != nil {
		return nil, err
	}
	var files []*os.File
	if r.Stdout != nil && r.Stderr != nil {
		files = []*os.File{r.Stdout, r.Stderr}
	}
	c := &Child{keeper: k, mark: Mark{Owner: k.owner, Run: r.ID}, done: make(chan struct{})}
	id, ch, err := k.begin(request{Run: wired}, c, files...)
	if err != nil {
		return nil, err
	}
	a, err := k.answer(ctx, ch)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil, errors.Join(err, k.abandon(c, ch))
	}
	if err != nil {
		k.forget(id)
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c.pid, c.thread, c.mark.Number = a.PID, a.Thread, a.Number
	return c, nil
}

// abandonment bounds how long a cancelled Run waits to be sure.
const abandonment = 5 * time.Second

func (k *Keeper) abandon(c *Child, started <-chan answer) error {
	ctx, cancel := context.WithTimeout(context.Background(), abandonment)
	defer cancel()
	a, err := k.answer(ctx, started)
	if err != nil || a.Error != nil {
		k.forget(c.id)
		if errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	}
	return c.Stop(ctx, 0)
}

func (r Run) request() (*runRequest, error) {
	if len(r.Argv) == 0 || r.Argv[0] == "" {
		return nil, &Error{Code: "config_invalid", Message: "the command is empty"}
	}
	if r.ID == "" || strings.ContainsAny(r.ID, ",\x00") {
		return nil, &Error{Code: "internal", Message: fmt.Sprintf("run ID %q: empty, or with a comma in it", r.ID)}
	}
	if !filepath.IsAbs(r.Dir) {
		return nil, &Error{Code: "config_invalid", Message: fmt.Sprintf("directory %q: not an absolute path", r.Dir)}
	}
	for _, part := range [][]string{r.Argv, r.Env, {r.Dir, r.Log}} {
		for _, s := range part {
			if strings.ContainsRune(s, 0) {
				return nil, &Error{Code: "config_invalid", Message: "a NUL character in the command, its directory or its environment"}
			}
		}
	}
	signal := unix.SIGTERM
	if r.StopSignal != "" {
		if signal = unix.SignalNum(r.StopSignal); signal == 0 {
			return nil, &Error{Code: "config_invalid", Message: "stop signal " + r.StopSignal + ": no such signal", Hint: "SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2"}
		}
	}
	return &runRequest{
		Run: r.ID, Number: r.Number, Dir: []byte(r.Dir), Log: []byte(r.Log),
		Argv: []byte(strings.Join(r.Argv, "\x00")), Env: []byte(strings.Join(r.Env, "\x00")),
		Signal: int(signal), Grace: r.Grace, Unprivileged: r.Unprivileged, Limits: r.Limits,
	}, nil
}

// Stream gives the write ends of two pipes whose other ends the keeper reads to
// their end into the log store in logDir. The caller closes them; Flush tells
// when all of it is stored.
func (k *Keeper) Stream(logDir string, run int) (stdout, stderr *os.File, err error) {
	var pipes [4]*os.File // stdout read, write, stderr read, write
	closeAll := func(files ...*os.File) {
		for _, f := range files {
			if f != nil {
				_ = f.Close()
			}
		}
	}
	if pipes[0], pipes[1], err = os.Pipe(); err != nil {
		return nil, nil, fmt.Errorf("log stream: %w", err)
	}
	if pipes[2], pipes[3], err = os.Pipe(); err != nil {
		closeAll(pipes[:]...)
		return nil, nil, fmt.Errorf("log stream: %w", err)
	}
	// The pipes are in the order of the request behind this one, so nobody has to
	// wait for its answer.
	id, _, err := k.begin(request{Stream: &streamRequest{Log: []byte(logDir), Number: run}}, nil, pipes[0], pipes[2])
	closeAll(pipes[0], pipes[2])
	if err != nil {
		closeAll(pipes[1], pipes[3])
		return nil, nil, err
	}
	k.forget(id)
	return pipes[1], pipes[3], nil
}

// Flush waits until the streams of a run that Stream made have been read to
// their end and are stored.
func (k *Keeper) Flush(ctx context.Context, logDir string, run int) error {
	id, ch, err := k.begin(request{Flush: &flushRequest{Log: []byte(logDir), Number: run}}, nil)
	if err != nil {
		return err
	}
	defer k.forget(id)
	_, err = k.answer(ctx, ch)
	return err
}

// Note appends a line to the event stream of a log store. What cannot be stored
// is told in the keeper's own log.
func (k *Keeper) Note(logDir string, run int, text string) {
	id, _, err := k.begin(request{Note: &noteRequest{Log: []byte(logDir), Number: run, Text: text, Time: time.Now()}}, nil)
	if err == nil {
		k.forget(id)
	}
}

// Close ends the connection and waits for the keeper, which stops what is still
// there, each run within its own grace.
func (k *Keeper) Close() error {
	// Only the writing half: the keeper's last words still come.
	err := k.wire.CloseWrite()
	<-k.lost
	if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ENOTCONN) {
		return nil
	}
	return err
}

// Child is one run that was started. Methods may be called concurrently.
type Child struct {
	keeper *Keeper
	id     uint64
	pid    int
	thread int // of the keeper, that forked it
	mark   Mark
	done   chan struct{}
	exit   Exit
}

// PID is the main process.
func (c *Child) PID() int { return c.pid }

// Mark is what all processes of the run carry.
func (c *Child) Mark() Mark { return c.mark }

// Done is closed when nothing of the run is left and all it wrote is stored. It
// is never closed when the keeper is lost before that.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit says how the main process ended; it is valid once Done is closed.
func (c *Child) Exit() Exit { return c.exit }

// Stop asks the run to end, forces it after grace, and returns nil once nothing
// is left of it; then Done is closed. A *SurvivorsError names what could not be
// ended. A second Stop with a shorter grace shortens the first; one with a
// longer grace changes nothing. It returns within grace and five seconds.
func (c *Child) Stop(ctx context.Context, grace time.Duration) error {
	select {
	case <-c.done:
		return nil
	default:
	}
	id, ch, err := c.keeper.begin(request{Stop: &stopRequest{Child: c.id, Grace: max(grace, 0)}}, nil)
	if err != nil {
		return err
	}
	defer c.keeper.forget(id)
	select {
	case <-c.done:
		return nil
	case a := <-ch:
		if len(a.Left) > 0 {
			return &SurvivorsError{Left: a.Left}
		}
		<-c.done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.keeper.lost:
		return ErrLost
	}
}
