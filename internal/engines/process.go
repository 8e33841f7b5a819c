package engines

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/remote"
)

// Options say for whom the process works. What it asks may be left out where
// nothing is started.
type Options struct {
	Dir     string // of the state
	Owner   runtime.Owner
	Environ []string        // of the process; nil is ours
	Log     *os.File        // what it has to say, which is nothing unless it fails
	Process runtime.Runtime // runs what stands for a container
	Passing bool            // nothing is started, and nothing may stay on disk

	Streams func(log string, run int) (stdout, stderr *os.File, err error)
	Flush   func(ctx context.Context, log string, run int) error
	Note    func(log string, run int, text string)
	Away    func(engine string, why error)
	Keeps   func(run runtime.RunID) bool
}

// Process is the process, which need not be there: it is started when it is first
// asked for something, and again when it was killed. Methods may be called
// concurrently.
type Process struct {
	options Options

	mu     sync.Mutex
	peer   *remote.Peer
	ended  chan struct{} // closed when the process has
	kill   func() error
	closed bool
	marked bool
}

// New starts nothing.
func New(o Options) *Process { return &Process{options: o} }

// has is the connection that there is, or nil.
func (p *Process) has() *remote.Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connected()
}

// connected is has. The lock is held.
func (p *Process) connected() *remote.Peer {
	if p.peer == nil {
		return nil
	}
	select {
	case <-p.peer.Gone():
		return nil
	default:
		return p.peer
	}
}

func (p *Process) dial(ctx context.Context) (*remote.Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("the process for engines is closed: %w", runtime.ErrUnavailable)
	}
	if peer := p.connected(); peer != nil {
		return peer, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	peer, err := p.begin()
	if err != nil {
		return nil, fmt.Errorf("start what speaks to engines: %w", err)
	}
	p.peer = peer
	return peer, nil
}

// begin starts the process. The lock is held.
func (p *Process) begin() (*remote.Peer, error) {
	dir := p.options.Dir
	if p.options.Passing {
		temp, err := os.MkdirTemp("", "locald-engines-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(temp) // what is executed keeps its file
		dir = temp
	}
	argv, err := program(dir)
	if err != nil {
		return nil, err
	}
	maker, err := maker(dir)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Args[0] = "locald" // whatever its file is called
	cmd.Env, cmd.Stderr, cmd.Dir = p.options.Environ, p.options.Log, "/"
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a key that ends a daemon in the foreground is not for it
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	peer := remote.NewPeer(ours)
	p.answer(peer)
	go peer.Serve()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it has no status that counts
		_ = peer.Close()
	}()
	p.ended, p.kill = ended, cmd.Process.Kill
	_, err = remote.Call[struct{}](context.Background(), peer, MethodOpen, Opening{Dir: p.options.Dir, Owner: p.options.Owner, Maker: maker})
	if err != nil {
		return nil, errors.Join(err, peer.Close())
	}
	return peer, nil
}

func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock() // not every system can make them so that no child has them
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "engines"), os.NewFile(uintptr(fds[1]), "engines")
	defer mine.Close()
	conn, err := net.FileConn(mine)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil //nolint:forcetypeassert // of this kind it was made
}

// answer is what the process may ask.
func (p *Process) answer(peer *remote.Peer) {
	o := p.options
	remote.Offer(peer, func(name string) (runtime.Runtime, error) {
		if name != ProcessRuntime || o.Process == nil {
			return nil, fmt.Errorf("runtime %q is not here: %w", name, runtime.ErrUnavailable)
		}
		return o.Process, nil
	})
	remote.HandleFiles(peer, MethodStreams, func(_ context.Context, r Run) ([]*os.File, error) {
		stdout, stderr, err := o.Streams(string(r.Log), r.Number)
		if err != nil {
			return nil, err
		}
		return []*os.File{stdout, stderr}, nil
	})
	remote.Handle(peer, MethodFlush, func(ctx context.Context, r Run) (struct{}, error) {
		return struct{}{}, o.Flush(ctx, string(r.Log), r.Number)
	})
	remote.Handle(peer, MethodNote, func(_ context.Context, r Run) (struct{}, error) {
		o.Note(string(r.Log), r.Number, r.Text)
		return struct{}{}, nil
	})
	remote.Handle(peer, MethodAway, func(_ context.Context, a Away) (struct{}, error) {
		o.Away(a.Engine, a.Err.Unpack())
		return struct{}{}, nil
	})
	remote.Handle(peer, MethodKeeps, func(_ context.Context, run runtime.RunID) (bool, error) { return o.Keeps(run), nil })
}

// closeTime is how long the process has to end by itself.
const closeTime = 5 * time.Second

// Close ends the process, if there is one. Containers stay as they are.
func (p *Process) Close() error {
	p.mu.Lock()
	p.closed = true
	peer, ended, kill := p.peer, p.ended, p.kill
	p.mu.Unlock()
	if peer == nil {
		return nil
	}
	err := peer.Close()
	select {
	case <-ended:
		return err
	case <-time.After(closeTime):
		return errors.Join(err, errors.New("what speaks to engines did not end by itself"), kill())
	}
}

// Engine is an engine that the process has.
type Engine struct {
	*remote.Containers
	process *Process
	name    string
}

var _ runtime.Engine = (*Engine)(nil)

// Engine is the runtime of an engine, by the name that projects write. Nobody is
// asked yet.
func (p *Process) Engine(name string) *Engine {
	return &Engine{Containers: remote.NewContainers(name, p.dial, p.has), process: p, name: name}
}

// Name is the one that it was asked for by. Engine of the contract says which it
// turned out to be.
func (e *Engine) Name() string { return e.name }

// Start is the contract's. That there is something in engines is on disk before.
func (e *Engine) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	if err := e.process.mark(); err != nil {
		return nil, err
	}
	return e.Containers.Start(ctx, spec)
}

// Get is the status of a GET by https, whatever certificate the other side has:
// this process is the one that has a library for TLS.
func (p *Process) Get(ctx context.Context, url string) (status string, err error) {
	peer, err := p.dial(ctx)
	if err != nil {
		return "", err
	}
	got, err := remote.Call[Got](ctx, peer, MethodGet, url)
	if err == nil && got.Why != "" {
		err = errors.New(got.Why)
	}
	return got.Status, err
}

// mark puts on record that something was started in an engine.
func (p *Process) mark() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.marked {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(p.options.Dir, marker), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("record that engines are used: %w", err)
	}
	p.marked = true
	return errors.Join(f.Sync(), f.Close())
}

// marker is the file in a state directory in which something was started in an
// engine, ever.
const marker = "engines"

// Used reports whether something was ever started in an engine for a state
// directory.
func Used(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, marker))
	return err == nil
}
