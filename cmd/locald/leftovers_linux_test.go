package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

// cmdKillKeeper kills the daemon and its keeper, so that nobody ends what they
// started. The keeper is stopped first: it would begin with that at once.
func cmdKillKeeper(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: killkeeper")
	}
	daemon := state.Store{Dir: placesOf(ts).Dir}.Look().Daemon.PID
	var keepers []string
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(daemon), "task"))
	ts.Check(err)
	for _, task := range tasks {
		children, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(daemon), "task", task.Name(), "children"))
		if err != nil {
			continue // the thread may have ended
		}
		for _, child := range strings.Fields(string(children)) {
			line, err := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
			if err == nil && strings.HasSuffix(string(line), "\x00keeper\x00") {
				keepers = append(keepers, child)
			}
		}
	}
	if len(keepers) != 1 {
		ts.Fatalf("daemon %d has the keepers %v; want one", daemon, keepers)
	}
	keeper, err := strconv.Atoi(keepers[0])
	ts.Check(err)
	ts.Check(unix.Kill(keeper, unix.SIGSTOP))
	ts.Check(end(daemon, unix.SIGKILL))
	ts.Check(end(keeper, unix.SIGKILL))
}

// cmdDaemonGone checks that no daemon runs.
func cmdDaemonGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: daemongone")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if d, err := daemonAt(ctx, placesOf(ts).Dir); !errors.Is(err, ipc.ErrNoDaemon) {
		ts.Fatalf("a daemon runs: %+v, %v", d, err)
	}
}

// cmdUnwanted makes the record say that nothing is wanted, as a down does
// before it stops anything.
func cmdUnwanted(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: unwanted")
	}
	store := state.Store{Dir: placesOf(ts).Dir}
	for _, p := range store.Look().Projects {
		for name := range p.Wants {
			p.Wants[name] = false
		}
		ts.Check(store.SaveProject(p.Project))
	}
}

// cmdSetuid copies a program to a path, with the right to become root. Only root
// can do that.
func cmdSetuid(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setuid PROGRAM PATH")
	}
	from, err := exec.LookPath(args[0])
	ts.Check(err)
	program, err := os.ReadFile(from)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), program, 0o600))
	ts.Check(os.Chmod(ts.MkAbs(args[1]), 0o755|os.ModeSetuid))
}

// cmdInstance keeps the id of the state directory in a variable.
func cmdInstance(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: instance VARIABLE")
	}
	ts.Setenv(args[0], string(state.Store{Dir: placesOf(ts).Dir}.Look().Owner))
}

// cmdProxy puts a socket at PATH that leads to the engine, and points
// DOCKER_HOST there. "proxy cut" ends every connection and takes no more,
// "proxy mend" takes them again.
func cmdProxy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: proxy PATH|cut|mend")
	}
	switch args[0] {
	case "cut":
		proxyOf(ts).cut()
	case "mend":
		ts.Check(proxyOf(ts).listen())
	default:
		p := &proxy{path: ts.MkAbs(args[0]), open: map[net.Conn]bool{}}
		ts.Check(p.listen())
		holdingsOf(ts).proxy = p
		hold(ts, p.cut)
		ts.Setenv("DOCKER_HOST", "unix://"+p.path)
	}
}

func proxyOf(ts *testscript.TestScript) *proxy {
	p := holdingsOf(ts).proxy
	if p == nil {
		ts.Fatalf("proxy PATH comes first")
	}
	return p
}

// proxy leads from a socket to the engine.
type proxy struct {
	path string

	mu       sync.Mutex
	listener *net.UnixListener
	open     map[net.Conn]bool
}

func (p *proxy) listen() error {
	_ = os.Remove(p.path) // of the time before it was cut
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	go p.accept(l)
	return nil
}

func (p *proxy) accept(l *net.UnixListener) {
	for {
		near, err := l.AcceptUnix()
		if err != nil {
			return
		}
		far, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: "/var/run/docker.sock", Net: "unix"})
		if err != nil {
			_ = near.Close()
			continue
		}
		if !p.keep(l, near, far) {
			return
		}
		go p.carry(near, far)
		go p.carry(far, near)
	}
}

// keep reports whether connections may go on: the proxy was not cut meanwhile.
func (p *proxy) keep(l *net.UnixListener, conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.listener != l {
			_ = c.Close()
			continue
		}
		p.open[c] = true
	}
	return p.listener == l
}

func (p *proxy) carry(to, from *net.UnixConn) {
	_, _ = io.Copy(to, from) // one that was cut is what it is for
	_ = to.CloseWrite()
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for c := range p.open {
		_ = c.Close()
		delete(p.open, c)
	}
}
