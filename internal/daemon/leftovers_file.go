package daemon

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/locald/locald/internal/postgres"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// lookForFiles adds what is below the state directory, and what is elsewhere.
func (s *search) lookForFiles() {
	for _, p := range s.seen.Projects {
		s.projectFiles(p)
	}
	s.daemonFiles()
	s.file(thing{Thing: ipc.Thing{State: ipc.ThingKept, Detail: "images for the builtin engine", Remedy: "locald images prune"}}, filepath.Join(s.places.Dir, "images"))
	s.stray()
	s.rest()
}

// file adds a file or a directory, if it is there and ours.
func (s *search) file(t thing, path string) {
	info, err := os.Lstat(path)
	if err != nil || !own(info) {
		return
	}
	t.Kind, t.Name, t.Bytes = "file", path, sizeOf(path)
	if t.State == ipc.ThingUsed {
		t.Remedy = ""
	} else if t.Remedy == "" {
		t.Remedy = s.removeFile(path)
	}
	s.add(t)
}

// removeFile is what removes a file. Beneath a daemon that runs only what it
// does not use is removed.
func (s *search) removeFile(path string) string {
	remove := "rm " + quoted(path)
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		remove = "rm -r " + quoted(path)
	}
	if s.live.daemon != 0 {
		remove = s.command("", "server", "stop") + " && " + remove
	}
	return remove
}

// here is the state of what belongs to the daemon itself.
func (s *search) here(otherwise string) string {
	if s.live.daemon != 0 {
		return ipc.ThingUsed
	}
	return otherwise
}

// of is the state of what belongs to a service.
func (s *search) of(project, service, otherwise string) string {
	if s.live.services[project+"/"+service] {
		return ipc.ThingUsed
	}
	return otherwise
}

func (s *search) projectFiles(p state.SeenProject) {
	store := state.Store{Dir: s.places.Dir}
	dir := store.Project(p.ID)
	services := map[string]bool{}
	for name := range p.Wants {
		services[name] = true
	}
	for name := range p.Services {
		services[name] = true
	}
	for _, name := range names(filepath.Join(dir, "data")) {
		services[name] = true
		t := thing{project: p.ID, Thing: ipc.Thing{State: s.of(p.ID, name, ipc.ThingKept), Service: name, Detail: "data"}}
		if s.canDown(p.ID, name) {
			t.Remedy = s.command(p.ID, "down", "--volumes", name)
		}
		if t.State == ipc.ThingKept && s.args.Volumes {
			t.State, t.Remedy = ipc.ThingLeft, ""
		}
		s.file(t, store.Data(p.ID, name))
	}
	for _, name := range names(filepath.Join(dir, "logs")) {
		s.file(thing{project: p.ID, Thing: ipc.Thing{State: s.of(p.ID, name, ipc.ThingKept), Service: name, Detail: "logs; they go with time"}}, store.Log(p.ID, name))
	}
	for name := range services {
		s.elsewhere(p, name)
	}
	used := ipc.ThingKept
	if slices.ContainsFunc(slices.AppendSeq(names(filepath.Join(dir, "logs")), maps.Keys(services)), func(n string) bool {
		return s.live.services[p.ID+"/"+n]
	}) {
		used = ipc.ThingUsed
	}
	detail := "what is wanted, environment, history"
	if p.Dir == "" {
		detail = "of a project without a readable record"
	}
	s.file(thing{project: p.ID, Thing: ipc.Thing{State: used, Detail: detail}}, dir)
	// Its data and logs are counted by themselves.
	if n := len(s.things); n > 0 && s.things[n-1].Name == dir {
		s.things[n-1].Bytes -= sizeOf(filepath.Join(dir, "data")) + sizeOf(filepath.Join(dir, "logs"))
	}
}

// elsewhere adds the sockets of a service.
func (s *search) elsewhere(p state.SeenProject, name string) {
	t := thing{project: p.ID, Thing: s.notification()}
	t.Service = name
	s.file(t, state.Store{Dir: s.places.Dir}.Notify(p.ID, name))
	t.State, t.Detail = s.of(p.ID, name, ipc.ThingLeft), "socket of a database that was being made"
	t.Remedy = "rm -r " + quoted(postgres.InitSockets(state.Store{Dir: s.places.Dir}.Data(p.ID, name)))
	s.file(t, postgres.InitSockets(state.Store{Dir: s.places.Dir}.Data(p.ID, name)))
}

func (s *search) notification() ipc.Thing {
	if s.live.daemon != 0 {
		return ipc.Thing{State: s.here(ipc.ThingLeft), Detail: "notification socket"}
	}
	return ipc.Thing{State: s.here(ipc.ThingLeft), Detail: "notification socket of a daemon that is gone"}
}

// daemonFiles adds what a daemon has outside the files of its projects.
func (s *search) daemonFiles() {
	socket := thing{Thing: ipc.Thing{State: s.here(ipc.ThingLeft), Detail: "socket; nobody listens"}}
	if s.live.daemon != 0 {
		socket.Detail = "socket"
	}
	// Where no daemon of ours answers, another one of this user may have the place.
	if s.live.daemon != 0 || !alive(s.places.Socket) {
		s.file(socket, s.places.Socket)
	}
	pid := thing{Thing: ipc.Thing{State: s.here(ipc.ThingLeft), Detail: "PID file of a daemon that is gone"}}
	if s.live.daemon != 0 {
		pid.Detail = "PID file"
	}
	s.file(pid, s.places.PIDFile)
	s.file(thing{Thing: s.notification()}, state.Store{Dir: s.places.Dir}.NotifyNobody())
	for _, path := range []string{s.places.Log, s.places.Log + ".1"} {
		s.file(thing{Thing: ipc.Thing{State: s.here(ipc.ThingKept), Detail: "the daemon's log"}}, path)
	}
}

// stray adds what writes that were cut off have left, what was put aside as
// damaged, and notification sockets of services that are not on record.
func (s *search) stray() {
	known := map[string]bool{}
	for _, t := range s.things {
		known[t.Name] = true
	}
	for _, name := range names(filepath.Join(s.places.Dir, "notify")) {
		path := filepath.Join(s.places.Dir, "notify", name)
		if !known[path] {
			s.file(thing{Thing: ipc.Thing{State: s.here(ipc.ThingLeft), Detail: "notification socket"}}, path)
		}
	}
	_ = filepath.WalkDir(s.places.Dir, func(path string, entry fs.DirEntry, err error) error {
		switch name := filepath.Base(path); {
		case err != nil:
			return nil //nolint:nilerr // what cannot be read is counted with its directory
		case entry.IsDir() && slices.Contains([]string{"data", "logs", "sandboxes", "images", "containers", runtime.EngineContainerd, "volumes"}, name):
			return fs.SkipDir
		case strings.HasPrefix(name, ".") && strings.Contains(name, ".new-"):
			s.file(thing{Thing: ipc.Thing{State: s.here(ipc.ThingLeft), Detail: "a write that was cut off"}}, path)
		case strings.Contains(name, ".bad-"):
			s.file(thing{Thing: ipc.Thing{State: ipc.ThingKept, Detail: "was damaged, and put aside", Remedy: "rm " + quoted(path)}}, path)
		}
		return nil
	})
}

// rest adds the state directory with what else is in it, and what nobody uses
// of other state directories in /tmp.
func (s *search) rest() {
	var told int64
	for _, t := range s.things {
		if t.Kind == "file" && strings.HasPrefix(t.Name, s.places.Dir+"/") {
			told += t.Bytes
		}
	}
	s.file(thing{Thing: ipc.Thing{State: s.here(ipc.ThingKept), Detail: "state: identity, locks"}}, s.places.Dir)
	if n := len(s.things); n > 0 && s.things[n-1].Name == s.places.Dir {
		s.things[n-1].Bytes = max(s.things[n-1].Bytes-told, 0)
		if s.places.Sandbox == "" {
			s.things[n-1].Remedy = "" // the sandboxes are in it
		}
	}
	others, _ := filepath.Glob(fmt.Sprintf("/tmp/locald-%d-*.sock", os.Getuid()))
	for _, path := range others {
		known := slices.ContainsFunc(s.things, func(t thing) bool { return t.Name == path })
		if !known && !listened(path) {
			s.file(thing{Thing: ipc.Thing{State: ipc.ThingForeign, Detail: "socket of another state directory; nobody listens", Remedy: "rm " + path}}, path)
		}
	}
}

// listened reports whether a socket of any kind has a listener.
func listened(path string) bool {
	if alive(path) {
		return true
	}
	return datagram(path)
}

// own reports whether a file belongs to this user.
func own(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}

// names is what is in a directory.
func names(dir string) []string {
	entries, _ := os.ReadDir(dir)
	all := make([]string, len(entries))
	for i, e := range entries {
		all[i] = e.Name()
	}
	return all
}

// sizeOf is the bytes of a file, or of everything below a directory that is not
// another state directory's.
func sizeOf(path string) int64 {
	var total int64
	_ = filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read is not counted
		}
		if entry.IsDir() && entry.Name() == "sandboxes" && filepath.Dir(at) == path {
			return fs.SkipDir
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}
