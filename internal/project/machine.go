package project

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/locald/locald/internal/ports"
	"github.com/locald/locald/internal/postgres"
	"github.com/locald/locald/internal/probe"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/runtime"
)

// Machine is what the projects of one daemon share.
type Machine struct {
	Store      state.Store
	Owner      runtime.Owner
	Process    runtime.Runtime
	Containers func(engine string) runtime.Engine     // the runtime of an engine, by the name that a project writes
	Choose     func(ctx context.Context) Engine       // the engine for a project that names none and has nothing anywhere
	Note       func(log string, run int, text string) // an event line for a service's log
	Installs   func() []postgres.Install
	Log        *slog.Logger

	// Get is the status of a GET by https ("200 OK").
	Get func(ctx context.Context, url string) (status string, err error)

	// Clear returns nil once nothing that an earlier daemon left is left in a
	// runtime; nothing is started there before. It tries again each time.
	Clear func(ctx context.Context, rt runtime.Runtime) error

	// Retain says how much the log stores in a directory keep together.
	Retain func(dir string, bytes int64, age time.Duration)

	// Intact is nil while the state directory is whole: nothing is changed of
	// what is wanted otherwise.
	Intact func() error

	ports sync.Mutex
	pool  *ports.Pool
	taken map[int]string // fixed and picked ports, by the key of who has them
	given map[string]int // picked ports by key

	sockets sync.Mutex
	notify  map[string]*probe.NotifySocket // by path
}

// key names a port of a service for the pool.
func key(project, service, port string) string { return project + "/" + service + "/" + port }

// pick gives a service a free port of its own: the one it had before, where
// nobody else here has it. Whether it is free is found out when the service
// starts: right after a crash, what is left of the service itself still has it.
func (m *Machine) pick(key string, before int) (int, error) {
	m.ports.Lock()
	defer m.ports.Unlock()
	if port := m.given[key]; port != 0 && m.taken[port] == key {
		return port, nil // of two requests at once that see the service for the first time
	}
	if m.pool == nil {
		pool, err := ports.Open()
		if err != nil {
			return 0, err
		}
		m.pool = pool
		if m.taken == nil {
			m.taken = map[int]string{}
		}
		for port := range m.taken {
			pool.Reserve(port)
		}
	}
	if m.given == nil {
		m.given = map[string]int{}
	}
	if by, held := m.taken[before]; before != 0 && (!held || by == key) {
		m.taken[before], m.given[key] = key, before
		m.pool.Reserve(before)
		return before, nil
	}
	port := m.pool.Pick(key, 0)
	if port == 0 {
		return 0, &runtime.Fault{Code: "port_taken", Err: fmt.Errorf("no port is free between %d and %d", ports.Lowest, ports.Highest)}
	}
	if _, held := m.taken[port]; held { // written for somebody after the pool was opened
		m.pool.Reserve(port)
		port = m.pool.Pick(key, 0)
	}
	m.taken[port], m.given[key] = key, port
	return port, nil
}

// claim gives a service the port that is written for it, whoever has it.
func (m *Machine) claim(key string, port int) {
	m.ports.Lock()
	defer m.ports.Unlock()
	if m.taken == nil {
		m.taken = map[int]string{}
	}
	m.taken[port] = key
}

// release lets others have a port again.
func (m *Machine) release(key string) {
	m.ports.Lock()
	defer m.ports.Unlock()
	delete(m.given, key)
	for port, by := range m.taken {
		if by == key {
			delete(m.taken, port)
		}
	}
}

// notifySocket is the socket at path, opened when it is first asked for and
// kept until the daemon leaves.
func (m *Machine) notifySocket(path string) (*probe.NotifySocket, error) {
	m.sockets.Lock()
	defer m.sockets.Unlock()
	if s := m.notify[path]; s != nil {
		return s, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		_ = os.Remove(path) // of a daemon that was killed; if it cannot be removed, listening says why
	}
	s, err := probe.ListenNotify(path)
	if err != nil {
		return nil, err
	}
	if m.notify == nil {
		m.notify = map[string]*probe.NotifySocket{}
	}
	m.notify[path] = s
	return s, nil
}

// Close closes what the machine holds open.
func (m *Machine) Close() {
	m.sockets.Lock()
	defer m.sockets.Unlock()
	for path, s := range m.notify {
		_ = s.Close() // it is a socket of ours that nobody writes to any more
		delete(m.notify, path)
	}
}
