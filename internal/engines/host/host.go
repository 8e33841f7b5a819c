// Package host is the process of package engines: it has the runtimes of all
// engines, and with them their libraries.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/builtin"
	"github.com/locald/locald/runtime/container"
	"github.com/locald/locald/runtime/containerd"
	"github.com/locald/locald/runtime/outer"
	"github.com/locald/locald/runtime/remote"
)

// connDescriptor is the connection to who started the process.
const connDescriptor = 3

// Main is the process, or with "exec" a command in a container for package
// engines. It returns the exit status.
func Main(args []string) int {
	if len(args) == 1 && args[0] == engines.ExecCommand {
		return execute()
	}
	file := os.NewFile(connDescriptor, "daemon")
	conn, err := net.FileConn(file)
	unixConn, ok := conn.(*net.UnixConn)
	if err != nil || !ok || len(args) > 0 {
		fmt.Fprintln(os.Stderr, "locald engines: it is started by the daemon only")
		return 2
	}
	_ = file.Close()
	h := &host{peer: remote.NewPeer(unixConn), made: map[string]runtime.Engine{}}
	h.answer()
	h.peer.Serve() // until nobody has need of it
	h.close()
	return 0
}

// host is the runtimes of one daemon.
type host struct {
	peer *remote.Peer

	mu      sync.Mutex
	opening engines.Opening
	made    map[string]runtime.Engine // by the name that it was asked for
}

func (h *host) answer() {
	remote.Offer(h.peer, func(name string) (runtime.Runtime, error) { return h.engine(name) })
	remote.Handle(h.peer, engines.MethodOpen, func(_ context.Context, o engines.Opening) (struct{}, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.opening = o
		return struct{}{}, nil
	})
	remote.Handle(h.peer, engines.MethodGet, func(ctx context.Context, url string) (engines.Got, error) { return get(ctx, url), nil })
	remote.Handle(h.peer, engines.MethodDiscover, func(ctx context.Context, _ struct{}) ([]engines.Found, error) {
		return packAll(container.Discover(ctx, os.Getenv, runtime.EngineAuto)), nil
	})
	remote.Handle(h.peer, engines.MethodNamed, func(context.Context, struct{}) (bool, error) { return container.Named(os.Getenv), nil })
	remote.Handle(h.peer, engines.MethodContainerd, func(ctx context.Context, _ struct{}) (engines.Found, error) {
		return engines.Pack(containerd.Look(ctx, os.Getenv)), nil
	})
	remote.Handle(h.peer, engines.MethodSurvey, func(ctx context.Context, _ struct{}) (engines.Surveyed, error) {
		made, asked := container.Survey(ctx, os.Getenv)
		return engines.Surveyed{Made: made, Asked: packAll(asked), Files: h.files()}, nil
	})
}

func packAll(found []runtime.FoundEngine) []engines.Found {
	packed := make([]engines.Found, len(found))
	for i, f := range found {
		packed[i] = engines.Pack(f)
	}
	return packed
}

// files are the directories of containers for which a process of ours stands, and
// their volumes.
func (h *host) files() []runtime.Files {
	h.mu.Lock()
	dir := h.opening.Dir
	h.mu.Unlock()
	all := (outer.Volumes{Dir: dir}).List()
	for engine, folder := range map[string]string{builtin.Name: builtin.Folder, containerd.Name: containerd.Name} {
		for _, f := range outer.Containers(dir, folder) {
			f.Engine = engine
			all = append(all, f)
		}
	}
	return all
}

// engine is the runtime of an engine, made when it is first asked for.
func (h *host) engine(name string) (runtime.Engine, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.opening.Dir == "" {
		return nil, errors.New("an engine was asked for before there was a state directory")
	}
	if h.made[name] == nil {
		known := []string{runtime.EngineAuto, runtime.EngineDocker, runtime.EnginePodman, runtime.EngineBuiltin, runtime.EngineContainerd}
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("engine %q is not known: %w", name, runtime.ErrInvalid)
		}
		h.made[name] = h.open(name)
	}
	return h.made[name], nil
}

func (h *host) open(name string) runtime.Engine {
	o := h.opening
	process := remote.New(engines.ProcessRuntime, runtime.Process, remote.Fixed(h.peer))
	away := func(why error) {
		_, _ = remote.Call[struct{}](context.Background(), h.peer, engines.MethodAway, engines.Away{Engine: name, Err: remote.Pack(why)}) // nobody is left who wants to know
	}
	switch name {
	case builtin.Name:
		return builtin.New(builtin.Options{Dir: o.Dir, Process: process, Users: os.Getenv(builtin.UsersVariable), Program: o.Maker, Note: h.note})
	case containerd.Name:
		return containerd.New(containerd.Options{Owner: o.Owner, Dir: o.Dir, Process: process, Away: away})
	}
	return container.New(container.Options{
		Owner: o.Owner, Engine: name, Streams: h.streams, Flush: h.flush, Note: h.note, Away: away, Keeps: h.keeps,
	})
}

func (h *host) streams(log string, run int) (stdout, stderr *os.File, err error) {
	files, err := remote.CallFiles(context.Background(), h.peer, engines.MethodStreams, engines.Run{Log: []byte(log), Number: run})
	if err != nil {
		return nil, nil, err
	}
	if len(files) != 2 {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, nil, fmt.Errorf("%d streams for the output of a run, not 2", len(files))
	}
	return files[0], files[1], nil
}

func (h *host) flush(ctx context.Context, log string, run int) error {
	_, err := remote.Call[struct{}](ctx, h.peer, engines.MethodFlush, engines.Run{Log: []byte(log), Number: run})
	return err
}

func (h *host) note(log string, run int, text string) {
	r := engines.Run{Log: []byte(log), Number: run, Text: text}
	_, _ = remote.Call[struct{}](context.Background(), h.peer, engines.MethodNote, r) // without a daemon there is no log
}

// keeps takes every run for kept while nobody can be asked.
func (h *host) keeps(run runtime.RunID) bool {
	kept, err := remote.Call[bool](context.Background(), h.peer, engines.MethodKeeps, run)
	return kept || err != nil
}

// close lets go of engines. Containers stay as they are.
func (h *host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.made {
		if held, ok := e.(io.Closer); ok {
			_ = held.Close() // nobody is left to be told
		}
	}
}
