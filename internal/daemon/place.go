package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// place is where the daemon is found: its directory, its lock, its socket. They
// can be removed while it runs.
type place struct {
	held  *state.Held
	owner runtime.Owner
	serve func(net.Listener) // answers on one more socket
	watch func()             // looks at what is there now, for the next removal

	mu       sync.Mutex
	listener *net.UnixListener
	socket   fs.FileInfo
	lost     error // not nil: the directory was removed, and what to tell whoever wants a change
	told     string
}

// intact is nil while the state directory is the one that this daemon began
// with. What was removed of the place itself is made again, so that the daemon
// is found, and no other one begins beside it. What was recorded is not: that
// somebody removed it is told to whoever wants a change, until a restart.
func (d *Daemon) intact() error {
	p := &d.place
	p.mu.Lock()
	defer p.mu.Unlock()
	lock, dir := p.held.Intact()
	socket := d.listensThere()
	identity := filepath.Join(d.options.Places.Dir, state.InstanceFile)
	_, err := os.Lstat(identity)
	known := err == nil
	if lock && dir && socket && known {
		return p.lost
	}
	if p.lost == nil && (!dir || !known) {
		p.lost = removed(d.options.Places.Dir)
	}
	if err := d.retake(lock, socket, known); err != nil {
		d.tellOnce("the daemon's place is not whole", err)
		if errors.Is(err, state.ErrLocked) {
			d.leave() // somebody else is the daemon here: what we keep must not run twice
		}
		return p.lost
	}
	d.log.Warn("the daemon's place was removed and made again",
		"lock", !lock, "directory", !dir, "socket", !socket, "identity", !known)
	p.told = ""
	p.watch()
	return p.lost
}

func removed(dir string) error {
	return &runtime.Fault{
		Code: "state_damaged", Hint: "locald server restart",
		Err: fmt.Errorf("state directory %s: it was removed while services run; a restart writes down what is wanted, and nothing changes before", dir),
	}
}

// listensThere reports whether the socket at the path is ours.
func (d *Daemon) listensThere() bool {
	there, err := os.Lstat(d.socket)
	return err == nil && os.SameFile(there, d.place.socket)
}

// retake makes again what is missing of the place.
func (d *Daemon) retake(lock, socket, known bool) error {
	if err := d.options.Places.Make(); err != nil {
		return err
	}
	if !lock {
		if err := d.place.held.Retake(); err != nil {
			return err
		}
	}
	if !known {
		if err := d.store.SaveOwner(d.place.owner); err != nil {
			return err
		}
	}
	if !socket {
		if err := d.listenAgain(); err != nil {
			return err
		}
	}
	return d.announce()
}

// listenAgain opens the socket once more, beside the one that nobody finds.
func (d *Daemon) listenAgain() error {
	if err := clear(d.socket); err != nil {
		return err
	}
	l, err := bind(d.socket)
	if err != nil {
		return err
	}
	d.place.listener.SetUnlinkOnClose(false) // the path is not its any more
	d.listensOn(l)
	d.place.serve(l)
	return nil
}

func (d *Daemon) listensOn(l *net.UnixListener) {
	d.place.listener = l
	d.place.socket, _ = os.Lstat(d.socket) // nil is no file: the next look makes another
}

// announce writes down where the daemon is to be found.
func (d *Daemon) announce() error {
	places := d.options.Places
	err := d.store.SaveDaemon(state.Daemon{PID: os.Getpid(), Version: d.options.Version, Socket: d.socket, Log: places.Log, StartedAt: d.began})
	if err != nil {
		return err
	}
	return os.WriteFile(places.PIDFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
}

// tellOnce logs what goes on being wrong when it begins to be.
func (d *Daemon) tellOnce(what string, err error) {
	if d.place.told != err.Error() {
		d.place.told = err.Error()
		d.log.Error(what, "error", err)
	}
}

// keepPlace looks after the place until ctx ends.
func (d *Daemon) keepPlace(ctx context.Context, server *ipc.Server) {
	d.place.serve = func(l net.Listener) {
		d.serving.Go(func() {
			if err := server.Serve(ctx, l); err != nil {
				d.log.Error("socket", "error", err)
			}
		})
	}
	places := d.options.Places
	events, watch := watchPaths(ctx, places.Dir, filepath.Join(places.Dir, "lock"), filepath.Join(places.Dir, state.InstanceFile), d.socket)
	d.place.mu.Lock()
	d.place.watch = watch
	d.place.mu.Unlock()
	d.serving.Go(func() {
		for range events {
			_ = d.intact() // it is in the log
		}
	})
}

// rewrite writes down what is wanted when the directory was removed, for the
// next daemon.
func (d *Daemon) rewrite() {
	d.place.mu.Lock()
	lost := d.place.lost
	d.place.mu.Unlock()
	if lost == nil {
		return
	}
	for _, p := range d.known() {
		if err := p.Rewrite(); err != nil {
			d.log.Error("what is wanted cannot be written down", "project", p.ID(), "error", err)
		}
	}
}

// files is what is wrong with what is on disk.
func (d *Daemon) files() []ipc.Check {
	var checks []ipc.Check
	if err := d.intact(); err != nil {
		checks = append(checks, ipc.Check{Area: "state", Name: "directory", Detail: err.Error(), Remedy: "locald server restart"})
	}
	for _, path := range d.store.Aside() {
		checks = append(checks, ipc.Check{Area: "state", Name: filepath.Base(path), Detail: "was damaged and put aside: " + path, Remedy: "rm -r " + path})
	}
	if len(checks) == 0 {
		checks = append(checks, ipc.Check{Area: "state", Name: "files", OK: true, Detail: "whole"})
	}
	return checks
}
