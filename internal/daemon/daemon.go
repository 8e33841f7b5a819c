package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/postgres"
	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/process"
)

// Options say which daemon this is.
type Options struct {
	Places     state.Places
	Version    string
	Foreground bool     // somebody watches standard error, which gets the log either way
	Ready      *os.File // told in one line of JSON that the daemon answers, then closed; may be nil
}

// Daemon is the one process that keeps services, answers clients and leaves
// when it is told to.
type Daemon struct {
	options Options
	store   state.Store
	socket  string
	began   time.Time
	log     *slog.Logger
	machine *project.Machine
	process *process.Runtime
	speaker *engines.Process // to engines
	place   place
	first   bool // of its state directory: nothing can be left of an earlier one

	leave   context.CancelFunc // ends Serve once services are down
	life    context.Context
	alone   chan struct{}            // closed when no keeper of an earlier daemon is left
	applied chan struct{}            // closed when what was wanted has been asked for
	rested  map[string]chan struct{} // by id of the projects that were asked for, all there once applied is closed: closed when they are at rest

	mu         sync.Mutex
	projects   map[string]*project.Project // by directory
	engines    map[string]runtime.Engine   // by the name that a project writes
	clearances map[runtime.Runtime]*clearance
	serving    sync.WaitGroup
	doubts     *doubts
	rush       *time.Timer // runs down after what was asked for last
}

// Serve is the daemon: it locks the state directory, listens, ends what an
// earlier daemon left, starts what was wanted and answers until ctx ends or a
// client asks it to leave. It then stops every service, in order, and records
// that they are still wanted. The error is state.ErrLocked when another daemon
// serves the directory, and an *ipc.Error otherwise.
func Serve(ctx context.Context, o Options) error {
	d := &Daemon{
		options: o, store: state.Store{Dir: o.Places.Dir}, began: time.Now().UTC(), log: logger(o),
		alone:    make(chan struct{}),
		applied:  make(chan struct{}),
		rested:   map[string]chan struct{}{},
		projects: map[string]*project.Project{}, engines: map[string]runtime.Engine{}, clearances: map[runtime.Runtime]*clearance{},
		doubts: newDoubts(), rush: time.AfterFunc(rushTime, giveBack),
	}
	defer d.rush.Stop()
	var end context.CancelFunc
	d.life, end = context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	l, err := d.begin()
	if errors.Is(err, state.ErrLocked) {
		return err
	}
	if err != nil {
		return fault(err)
	}
	defer d.place.held.Release()
	return d.serve(ctx, l, end)
}

// begin takes the places of the daemon: the lock first, then the socket. The keeper
// takes as long to come as a client, and comes meanwhile.
func (d *Daemon) begin() (l *net.UnixListener, err error) {
	if err := d.options.Places.Make(); err != nil {
		return nil, err
	}
	if d.place.held, err = state.Lock(d.options.Places); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.place.held.Release()
		}
	}()
	d.first = d.store.New()
	owner, err := d.store.Owner()
	if err != nil && owner == "" {
		return nil, err
	}
	d.complain([]error{err})
	d.process = process.New(keeper.Options{Dir: d.options.Places.Dir, Owner: string(owner), Log: os.Stderr, Logs: keeper.Retention{Bytes: 256 << 20, Age: 7 * 24 * time.Hour}, Trouble: d.doubts.ofLog})
	go d.awaitKeeper(d.life)
	go d.holdKeeper(d.life)
	defer func() {
		if err != nil {
			_ = d.process.Close() // it has done nothing yet
		}
	}()
	if l, d.socket, err = listen(d.options.Places); err != nil {
		return nil, err
	}
	d.place.owner = owner
	d.listensOn(l)
	if err := d.announce(); err != nil {
		_ = l.Close()
		return nil, err
	}
	d.machine = &project.Machine{
		Store: d.store, Owner: owner, Process: d.process, Containers: d.engine,
		Choose:   d.chooseEngine,
		Note:     d.note,
		Installs: sync.OnceValue(func() []postgres.Install { return postgres.Installs(os.Getenv) }),
		Log:      d.log,
		Get:      func(ctx context.Context, url string) (string, error) { return d.speaker.Get(ctx, url) },
		Clear:    d.clear,
		Intact:   d.intact,
		Retain: func(dir string, bytes int64, age time.Duration) {
			d.process.Keep(dir, keeper.Retention{Bytes: bytes, Age: age})
		},
	}
	d.speaker = d.newSpeaker()
	return l, nil
}

// serve answers until it is told to leave, and ends the daemon's life.
func (d *Daemon) serve(ctx context.Context, l net.Listener, end context.CancelFunc) error {
	told, leave := context.WithCancel(ctx)
	defer leave()
	life := d.life
	d.leave = leave

	server := &ipc.Server{Methods: d.table(), Report: func(err error) { d.log.Error("ipc", "error", err) }}
	d.load() // before the first answer: a client must not make a project anew that is on record
	answering := make(chan error, 1)
	go func() { answering <- server.Serve(life, l) }()
	d.keepPlace(life, server)
	d.tellReady()
	d.log.Info("serving", "pid", os.Getpid(), "socket", d.socket, "version", d.options.Version)
	restored := make(chan struct{})
	go func() { defer close(restored); d.restore(life) }()

	var err error
	select {
	case <-told.Done():
	case err = <-answering:
	}
	d.log.Info("leaving")
	if failed := d.halt(life, func(ipc.Event) error { return nil }); len(failed) > 0 {
		d.log.Error("not everything could be stopped", "services", failed)
	}
	d.sweepEngines(life)
	d.rewrite()
	end()
	if err == nil {
		err = <-answering // and no handler is left
	}
	<-restored
	d.serving.Wait()
	d.close()
	_ = os.Remove(d.options.Places.PIDFile)
	return err
}

// sweepTime is how long an engine has to remove what nobody uses when the daemon
// leaves; the next one tries again.
const sweepTime = 5 * time.Second

// close lets go of what the runtimes hold.
func (d *Daemon) close() {
	for _, p := range d.known() {
		p.Close()
	}
	d.machine.Close()
	if err := d.speaker.Close(); err != nil {
		d.log.Warn("engines", "error", err)
	}
	if err := d.process.Close(); err != nil {
		d.log.Warn("keeper", "error", err)
	}
}

// tellReady answers whoever waits for the daemon to start.
func (d *Daemon) tellReady() {
	if d.options.Ready == nil {
		return
	}
	_, _ = d.options.Ready.WriteString(`{"ok":true}` + "\n") // nobody may be listening any more
	_ = d.options.Ready.Close()
	d.options.Ready = nil
}

// known is every project that the daemon has.
func (d *Daemon) known() []*project.Project {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*project.Project, 0, len(d.projects))
	for _, p := range d.projects {
		all = append(all, p)
	}
	return all
}

// open is the project of a directory, which is known from then on.
func (d *Daemon) open(of ipc.Project) (*project.Project, error) {
	if !filepath.IsAbs(of.Dir) {
		return nil, &ipc.Error{Code: ipc.CodeInvalidRequest, Message: fmt.Sprintf("dir %q: not an absolute path", of.Dir)}
	}
	dir := of.Dir
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.projects[dir]
	if p != nil {
		return p, nil
	}
	name := filepath.Base(dir)
	p, problems := project.Open(d.machine, state.Project{ID: state.NewID(name, dir, d.machine.Owner), Name: name, Dir: dir, File: of.File})
	d.complain(problems)
	d.admit(dir, p)
	return p, nil
}

// admit begins to serve a project. The lock is held.
func (d *Daemon) admit(dir string, p *project.Project) {
	d.projects[dir] = p
	d.serving.Go(func() { p.Serve(d.life) })
}

func (d *Daemon) complain(problems []error) {
	for _, err := range problems {
		if err != nil {
			d.log.Error("state", "error", err)
		}
	}
}

// stopAll is a client that wants the daemon to leave.
func (d *Daemon) stopAll(ctx context.Context, _ ipc.NoArgs, send func(ipc.Event) error) (ipc.Event, error) {
	context.AfterFunc(ctx, d.leave) // once the client has its answer, or has gone
	failed := d.halt(context.WithoutCancel(ctx), send)
	if len(failed) > 0 {
		e := ended(1, nil, "not everything could be stopped: "+failed[0])
		e.Code = ipc.CodeStopFailed
		return e, nil
	}
	return ended(0, nil, ""), nil
}

// haltingMemory is what a daemon that leaves may take before it collects garbage.
const haltingMemory = 256 << 20

// halt stops the services of every project at once, each project in its own
// order, without a change of what is wanted.
func (d *Daemon) halt(ctx context.Context, send func(ipc.Event) error) []string {
	// What is garbage from here on goes with the process, unless a stop takes long.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(haltingMemory)
	var mu sync.Mutex
	var failed []string
	var halting sync.WaitGroup
	for _, p := range d.known() {
		halting.Go(func() {
			left, err := d.haltOne(ctx, p, func(e ipc.Event) error {
				mu.Lock()
				defer mu.Unlock()
				return send(e)
			})
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, left...)
			if err != nil {
				failed = append(failed, err.Error())
			}
		})
	}
	halting.Wait()
	return failed
}

func (d *Daemon) haltOne(ctx context.Context, p *project.Project, send func(ipc.Event) error) ([]string, error) {
	sub, end := p.Halt(false)
	defer end()
	var names []string
	for _, s := range sub.Snapshot {
		names = append(names, s.Service)
	}
	deaf := false // a client that has gone does not keep services running
	failed, err := followDown(ctx, p, sub, names, func(e ipc.Event) error {
		if !deaf {
			deaf = send(e) != nil
		}
		return nil
	})
	return append(failed, d.left(ctx, p, names)...), err
}

// restored reports whether what an earlier daemon left has been dealt with.
func (d *Daemon) restored() bool {
	select {
	case <-d.applied:
		return true
	default:
		return false
	}
}

// rushTime is how long after services were started or stopped the memory that
// it took is given back, 2 MiB of 16 with 100 services. By itself that happens
// with the next collections, which a daemon with nothing to do does not come to.
const rushTime = 2 * time.Second

// hurry lets memory grow while services are started or stopped: collecting it
// takes a fifth of what that takes.
func (d *Daemon) hurry() (over func()) {
	debug.SetGCPercent(400)
	return func() { d.rush.Reset(rushTime) }
}

// giveBack returns memory to the system. Each collection halves the stacks that
// are used by less than a quarter.
func giveBack() {
	debug.SetGCPercent(100)
	goruntime.GC()
	debug.FreeOSMemory()
}

// note writes an event line into a service's log.
func (d *Daemon) note(log string, run int, text string) {
	select {
	case <-d.alone: // before, the keeper of an earlier daemon writes
	case <-d.life.Done():
		return
	}
	k, err := d.process.Keeper(d.life)
	if err != nil {
		d.log.Warn("keeper", "error", err)
		return
	}
	k.Note(log, run, text)
}

// flush waits until a container's output is stored.
func (d *Daemon) flush(ctx context.Context, log string, run int) error {
	k, err := d.process.Keeper(ctx)
	if err != nil {
		return err
	}
	return k.Flush(ctx, log, run)
}

// streams opens the far ends of a container's output.
func (d *Daemon) streams(log string, run int) (stdout, stderr *os.File, err error) {
	select {
	case <-d.alone:
	case <-d.life.Done():
		return nil, nil, d.life.Err()
	}
	k, err := d.process.Keeper(d.life)
	if err != nil {
		return nil, nil, err
	}
	return k.Stream(log, run)
}
