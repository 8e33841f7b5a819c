// Package runtime is the contract between locald and whatever executes a
// service. It is a leaf: it imports no other room of locald, and every other
// room may import it.
//
// A Runtime starts instances and finds the ones an earlier daemon left behind.
// It never restarts, never waits for dependencies and never judges health:
// those are the supervisor's. Instances are never adopted after a crash of the
// daemon; they are found so that they can be ended.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Kind names a runtime. It is part of a persisted Ref, so values never change.
type Kind string

// The runtimes locald ships.
const (
	Process   Kind = "process"
	Container Kind = "container"
)

// Owner identifies one locald state directory, hence one daemon at a time.
type Owner string

// Project says whose service a spec is. ID is unique on the machine and fit
// for file names and container names; Name is for people and need not be
// unique.
type Project struct{ ID, Name, Dir string }

// RunID identifies one run, one attempt to keep a service up, for as long as
// the state directory exists: "shop-1a2b3c4d/web#7".
type RunID string

// Spec is all a runtime needs to start one run of one service. It holds values
// only, so a running instance cannot be changed by editing configuration.
type Spec struct {
	Project Project
	Service string
	Run     int   // counts from 1 for each service and never repeats
	Owner   Owner // marks the instance, so that List can find it after a crash

	Command []string // argv; with Image it replaces the image's CMD, and empty means the image's own
	Dir     string   // of a process; the image's, or Image.Workdir, for a container
	Env     []string // the complete environment, "KEY=value"; added to the image's for a container

	// Log is the directory of the service's log store. What the instance
	// writes is appended there by the keeper, in numbered lines.
	Log string

	// StopSignal is what asks the instance to end, "SIGTERM" for example;
	// empty is SIGTERM for a process and the image's own for a container.
	StopSignal string
	// Grace is how long the instance has after StopSignal when nobody is left
	// to call Stop, because the daemon was killed.
	Grace time.Duration

	// Unprivileged asks for a process that does not see itself as root even
	// when locald runs as root. Files keep belonging to the user of locald.
	Unprivileged bool

	// Limits is what the processes may use that this one puts into the control
	// groups it is given; see internal/keeper. nil: it starts nothing, or has none.
	Limits *Limits

	Image *Image // nil for a plain process
}

// Limits is what the processes of an instance may use at most; zero is no limit.
type Limits struct {
	Memory int64 // bytes
	CPUs   float64
	PIDs   int64 // processes and threads
}

// ID is the run's identity, made of the project, the service and the run.
func (s Spec) ID() RunID {
	return RunID(fmt.Sprintf("%s/%s#%d", s.Project.ID, s.Service, s.Run))
}

// Split takes a RunID apart; ok is false when it is not one.
func (id RunID) Split() (project, service string, run int, ok bool) {
	project, rest, ok1 := strings.Cut(string(id), "/")
	service, number, ok2 := strings.Cut(rest, "#")
	n, err := fmt.Sscanf(number, "%d", &run)
	return project, service, run, ok1 && ok2 && n == 1 && err == nil
}

// Image is the container part of a Spec.
type Image struct {
	Name       string
	Pull       Pull
	Build      *Build   // nil for one that is pulled; Pull is then that of what it is built from
	Entrypoint []string // nil is the image's own
	User       string
	Workdir    string
	Host       bool // the host's network instead of the project's own
	Ports      []Port
	Mounts     []Mount
	Tmpfs      []string
	ReadOnly   bool
	Memory     int64 // bytes; 0 is no limit
	CPUs       float64
	Labels     map[string]string

	// Engine allows mounts that give the container the engine itself.
	Engine bool

	// Reach lists TCP ports of the host's loopback that the container must be
	// able to reach at host.docker.internal.
	Reach []int
}

// Build says what an image is made of. Prepare makes it where there is none of
// that Digest yet, and calls it Image.Name; PullAlways makes it in any case. An
// engine that builds nothing answers with NoBuilder.
type Build struct {
	Context    string   // absolute path of a directory
	Dockerfile string   // absolute path
	Target     string   // a stage; empty is the last one
	Args       []string // "KEY=value"; they can be read off the image
	Digest     string   // of the files; empty when nothing is known of them
}

// NoBuilder is the fault of an engine that builds no images.
func NoBuilder(engine string) error {
	return &Fault{
		Code: "engine_unavailable", Kind: ErrInvalid,
		Hint: `install Docker or Podman (sudo apt-get install docker.io), and engine = "docker" in [project]`,
		Err:  fmt.Errorf("build: the engine %s builds no images", engine),
	}
}

// Pull says when an image is fetched.
type Pull string

// The pull policies.
const (
	PullMissing Pull = "missing"
	PullAlways  Pull = "always"
	PullNever   Pull = "never"
)

// Port publishes a container's TCP port on 127.0.0.1.
type Port struct{ Host, Container int }

// Mount puts a volume (a name, kept by the engine) or a host path (absolute)
// at Target.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// Ref is the durable name of an instance: what a record holds and what Attach
// takes. ID is opaque outside the runtime that made it, and names one instance
// for ever: never another that took over its number.
type Ref struct {
	Kind Kind   `json:"kind"`
	Run  RunID  `json:"run"`
	ID   string `json:"id"`
}

// Exit says how an instance ended. Known is false when the runtime can tell
// that it ended but not how.
type Exit struct {
	Known  bool
	Code   int    // 128+n when a signal ended it
	Signal string // "SIGKILL", or empty
	At     time.Time
	Reason string // what else there is to say: "killed by the kernel for memory", "removed by someone else"
}

// String says how it ended, in the words people see.
func (e Exit) String() string {
	var s string
	switch {
	case !e.Known:
		s = "ended, nobody saw how"
	case e.Signal != "":
		s = "killed by " + e.Signal
	default:
		s = fmt.Sprintf("exited with %d", e.Code)
	}
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	return s
}

// Progress is one step of Prepare: all of it or, with Layer, one layer of an
// image. Current and Total are bytes, or 0.
type Progress struct {
	Step    string // "pulling postgres:15"
	Layer   string // the first 12 digits of its digest
	Phase   Phase  // of the layer; Retrying also of the whole, and Step then says why
	Current int64
	Total   int64
}

// Info is what can be shown of an instance.
type Info struct {
	PID         int    // the main process, on this host; 0 when there is none to see
	ContainerID string // empty for a process
	Engine      string // "process", "docker", "podman"
	Healthcheck bool   // the image brings a health check; see Health
}

// Runtime starts and finds instances. Methods may be called concurrently.
type Runtime interface {
	Kind() Kind

	// Prepare does the slow work that can be done before a run exists: pull an
	// or build an image, check that an executable is there. It may be called again at any
	// time and must then be cheap. It never creates an instance. report may be
	// called from any goroutine until Prepare returns.
	Prepare(ctx context.Context, spec Spec, report func(Progress)) error

	// Start returns once an instance exists that List would report. Cancelling
	// ctx before Start has returned abandons the attempt and leaves nothing
	// behind; cancelling it afterwards does nothing.
	Start(ctx context.Context, spec Spec) (Instance, error)

	// List returns every instance of owner that can still be found, whether or
	// not this daemon started it, by what marks the instances themselves. It
	// needs no record. ErrUnavailable means that nothing may be concluded.
	List(ctx context.Context, owner Owner) ([]Ref, error)

	// Attach returns the live instance that ref names, or ErrGone when there
	// is none or another has taken its number.
	Attach(ctx context.Context, ref Ref) (Instance, error)
}

// Instance is one live execution. Methods may be called concurrently, in any
// state, any number of times.
type Instance interface {
	Ref() Ref
	Info() Info

	// Wait blocks until the instance has ended and nothing of it is left, and
	// answers every caller the same, before and after the end. Everything the
	// instance wrote is then in the log store. Its error means "cannot know",
	// never "ended badly"; that is what Exit is for.
	Wait(ctx context.Context) (Exit, error)

	// Stop asks the instance to end, forces it after grace, and returns nil
	// only when nothing of it is left: descendants included, whatever they did
	// to their session, group, parent or environment. What could not be ended
	// is named by a *Survivors error. Stopping an ended instance is not an
	// error, and stopping twice is stopping once. A second Stop with a shorter
	// grace shortens the first.
	Stop(ctx context.Context, grace time.Duration) error

	// Remove releases what an ended instance still holds. Removing twice is
	// removing once.
	Remove(ctx context.Context) error
}

// Listener is implemented by instances that can tell which TCP ports their own
// processes listen on, as numbers on this host. Somebody else's listener on
// the same number does not count.
type Listener interface {
	Listening(ctx context.Context) ([]int, error)
	// Owns reports whether the process is one of the instance's: the main one
	// or a descendant.
	Owns(pid int) bool
}

// Exposer is implemented by instances that can tell where other machines may
// reach them: the addresses, not of the loopback, on which their own processes
// listen.
type Exposer interface {
	Exposed(ctx context.Context) ([]netip.AddrPort, error)
}

// Health is what an engine says of an instance's own health check.
type Health string

// What a health check can say.
const (
	HealthStarting Health = "starting"
	Healthy        Health = "healthy"
	Unhealthy      Health = "unhealthy"
)

// HealthReporter is implemented by instances whose engine runs a health check.
// Health calls changed with each new finding, the current one first, until ctx
// or the instance ends.
type HealthReporter interface {
	Health(ctx context.Context, changed func(Health)) error
}

// Pauser is implemented by instances that somebody else may pause: all of the
// instance then stands still, and none of it has ended. Paused calls changed
// with each change, what is the case now first, until ctx or the instance ends.
type Pauser interface {
	Paused(ctx context.Context, changed func(paused bool)) error
}

// Execer is implemented by instances in which a further command can be run
// without a terminal. output is what the command wrote, cut at 64 KiB.
type Execer interface {
	Exec(ctx context.Context, command []string) (exit Exit, output []byte, err error)
}

// StoredImage is an image that is on this machine.
type StoredImage struct {
	Name   string    // as people write it: "postgres:15"
	As     []string  // the names that were asked for and mean it
	Digest string    // "sha256:…"
	Size   int64     // bytes of all its files
	Used   time.Time // the last that is known of; zero where nothing is
	Held   bool      // a container of this runtime needs it
}

// ImageLister is implemented by runtimes that can tell which images they have.
type ImageLister interface {
	// Images returns those of the named images that are there. A runtime that is
	// an ImagePruner returns all others too.
	Images(ctx context.Context, names []string) ([]StoredImage, error)
}

// ImagePruner is implemented by runtimes that keep images themselves and not in
// an engine.
type ImagePruner interface {
	// PruneImages removes the images that no container needs, but for those that
	// are named, and what pulls that broke off have left. It returns what it
	// removed, and the bytes that are free now.
	PruneImages(ctx context.Context, keep []string) (removed []StoredImage, freed int64, err error)
}

// Failures a caller acts on. Everything else is wrapped and only reported.
var (
	ErrGone        = errors.New("instance is gone")
	ErrInvalid     = errors.New("spec cannot be started") // retrying cannot help
	ErrUnavailable = errors.New("runtime is unavailable") // retrying may help; nothing follows for instances
)

// Fault is a failure with a code of the surface and something to type next. A
// runtime wraps one into its errors where it knows better than its caller what
// helps.
type Fault struct {
	Service string // that the request named; empty where the caller knows
	Code    string // one of the codes of the surface: "image_pull", "command_missing"
	Hint    string // a command or a fact, never advice to "check" something
	Err     error
	Kind    error // one of the failures above, for callers that act on it; not shown
}

func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap gives the error and its kind.
func (f *Fault) Unwrap() []error {
	if f.Kind == nil {
		return []error{f.Err}
	}
	return []error{f.Err, f.Kind}
}

// Survivors is the error of a Stop that could not end everything.
type Survivors struct {
	Left []Survivor
}

// Survivor is one process that is still there, and why.
type Survivor struct {
	PID    int
	Reason string // "uninterruptible in fuse_wait", "belongs to root"
}

func (s *Survivors) Error() string {
	words := make([]string, len(s.Left))
	for i, l := range s.Left {
		words[i] = fmt.Sprintf("process %d: %s", l.PID, l.Reason)
	}
	return "still running: " + strings.Join(words, "; ")
}
