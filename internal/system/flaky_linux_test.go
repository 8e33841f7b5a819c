package system

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestEngineComesBack: what a daemon that was killed left in an engine is ended
// when the engine answers again, although nobody asks for it.
func TestEngineComesBack(t *testing.T) {
	promise(t, "P4", "P10", "F46")
	needEngine(t)
	e := newFlakyEngine(t)
	s := newSandbox(t, `[project]
name = "back"

[services.box]
image = "locald-test/shell:1"
command = ["sh", "-c", "exec sleep 1000"]
`)
	s.reaches(e)
	s.run("up")
	status := s.status()
	e.vanish()
	kill(t, status.Daemon.PID)
	if r := s.try("stop", "box"); r.code != 1 || !strings.Contains(r.stderr, e.path) {
		t.Errorf("stop without an engine: %v", r)
	}
	e.appear()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// That it is gone already is as good.
	_ = exec.CommandContext(ctx, "docker", "wait", of(status, "box").ContainerID).Run()
	if ctx.Err() != nil {
		t.Error("the container runs on")
	}
}

// flakyEngine stands between locald and the engine, byte by byte.
type flakyEngine struct {
	t    *testing.T
	path string
	gate sync.RWMutex // locked while it hangs

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
}

func newFlakyEngine(t *testing.T) *flakyEngine {
	t.Helper()
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	e := &flakyEngine{t: t, path: filepath.Join(dir, "docker.sock"), conns: map[net.Conn]bool{}}
	e.appear()
	t.Cleanup(func() {
		e.vanish()
		_ = os.RemoveAll(dir)
	})
	return e
}

// reaches makes this the engine of a sandbox.
func (s *sandbox) reaches(e *flakyEngine) {
	s.environ = slices.DeleteFunc(s.environ, func(entry string) bool { return strings.HasPrefix(entry, "DOCKER_HOST=") })
	s.environ = append(s.environ, "DOCKER_HOST=unix://"+e.path)
}

// appear makes the engine listen.
func (e *flakyEngine) appear() {
	_ = os.Remove(e.path) // what a killed engine leaves
	l, err := net.Listen("unix", e.path)
	if err != nil {
		e.t.Error(err)
		return
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	e.mu.Lock()
	e.listener = l
	e.mu.Unlock()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go e.serve(conn)
		}
	}()
}

// vanish refuses what comes, and breaks what is there.
func (e *flakyEngine) vanish() {
	e.mu.Lock()
	l := e.listener
	e.mu.Unlock()
	if l != nil {
		_ = l.Close()
	}
	e.cut()
}

func (e *flakyEngine) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		_ = c.Close()
	}
	clear(e.conns)
}

func (e *flakyEngine) serve(client net.Conn) {
	path, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://")
	if !ok {
		path = "/var/run/docker.sock"
	}
	real, err := net.Dial("unix", path)
	if err != nil {
		_ = client.Close()
		return
	}
	e.mu.Lock()
	e.conns[client], e.conns[real] = true, true
	e.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { e.forward(client, real) })
	both.Go(func() { e.forward(real, client) })
	both.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range []net.Conn{client, real} {
		_ = c.Close()
		delete(e.conns, c)
	}
}

func (e *flakyEngine) forward(from, to net.Conn) {
	for buffer := make([]byte, 32<<10); ; {
		n, err := from.Read(buffer)
		e.gate.RLock()
		if n > 0 {
			_, err = to.Write(buffer[:n])
		}
		e.gate.RUnlock()
		if err != nil {
			_ = to.(*net.UnixConn).CloseWrite()
			return
		}
	}
}
