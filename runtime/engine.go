package runtime

import (
	"context"
	"net/netip"
	"slices"
	"strings"
)

// The engines, by the names that projects write. EngineAuto is whichever of
// those with Docker's API answers first.
const (
	EngineAuto       = "auto"
	EngineDocker     = "docker"
	EnginePodman     = "podman"
	EngineBuiltin    = "builtin"
	EngineContainerd = "containerd"
)

// Stands reports whether a process of ours stands for each container of an
// engine, which it ends like any process.
func Stands(engine string) bool { return engine == EngineBuiltin || engine == EngineContainerd }

// Engine is a Runtime of containers.
type Engine interface {
	Runtime

	// Ping is nil when an engine answers.
	Ping(ctx context.Context) error
	// Engine names the engine in use, "docker" for example; empty before it is known.
	Engine() string
	// At is where a client finds the container of a run that goes there itself: the
	// engine's address, or a directory where there is no engine.
	At(run RunID) string
	// HasVolume reports whether a project, by its id, has a named volume.
	HasVolume(ctx context.Context, project, name string) (bool, error)
	// RemoveVolumes deletes the named volumes of a project, by its id, that a
	// service made; those that do not exist are no error.
	RemoveVolumes(ctx context.Context, project, service string, names ...string) error
	// Sweep removes what the owner still has there and nothing uses.
	Sweep(ctx context.Context) error
}

// FoundEngine is one place where an engine was looked for.
type FoundEngine struct {
	Engine  string // as it says itself or, when it does not answer, as the place suggests
	Version string // of the engine, when it answered
	Host    string // "unix:///var/run/docker.sock"
	Source  string // why it was looked for there: "DOCKER_HOST", "docker context colima", "usual place"
	Used    bool
	Why     string // why it is used or not, in words
	Err     error  // why it cannot be used; nil when it answered
	Absent  bool   // a usual place with nothing in it
	Named   bool   // the user named it, by a variable or a docker context
}

// What an engine keeps for locald.
const (
	MadeContainer = "container"
	MadeNetwork   = "network"
	MadeVolume    = "volume"
)

// Made is a container, a network or a volume in an engine that carries locald's
// label.
type Made struct {
	Kind    string // MadeContainer, MadeNetwork, MadeVolume
	Engine  string // "docker", "podman"
	Host    string // where that listens
	ID      string // of a volume its name
	Name    string
	Owner   Owner
	Project string // the project's name, as the label has it
	Dir     string
	Service string
	Run     RunID // of a container

	State     string           // of a container: "running", "exited"
	Published []netip.AddrPort // of a container: where it appears on this host
	Gateways  []netip.Addr     // of a network: this host's addresses in it
}

// ProjectID is the id of the project that it was made for, empty where nothing
// tells: the run says it of a container, the name of the rest. The known ones are
// tried in their order.
func (m Made) ProjectID(known []string) string {
	if id, _, _, ok := m.Run.Split(); ok {
		return id
	}
	rest, ours := strings.CutPrefix(m.Name, "locald-")
	fits := func(id string) bool { return ours && (rest == id || strings.HasPrefix(rest, id+"-")) }
	if i := slices.IndexFunc(known, fits); i >= 0 {
		return known[i]
	}
	return ""
}

// Files is a directory in the state directory that belongs to a container for
// which a process of ours stands: that of a run, or a volume.
type Files struct {
	Path    string
	Project string // by its id
	Service string // that made it
	Run     RunID  // empty for a volume
	Engine  string // empty for a volume
}
