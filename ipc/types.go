package ipc

import (
	"fmt"
	"strings"
	"time"
)

// Protocol is the number every request carries. Within one number nothing is
// removed and nothing changes meaning.
const Protocol = 1

// Limits of a request.
const (
	MaxRequest     = 1 << 20         // bytes, the newline included
	RequestTimeout = 5 * time.Second // to send it
)

// Request is the one line a client sends.
type Request struct {
	V    int    `json:"v"`
	Call string `json:"call"`
	Args any    `json:"args,omitempty"`
}

// The calls. A call answers one value unless it says "stream".
const (
	CallPing    = "ping"            // NoArgs → Daemon
	CallUp      = "project.up"      // UpArgs → stream of Event
	CallDown    = "project.down"    // DownArgs → stream of Event
	CallPlan    = "project.plan"    // UpArgs → Plan
	CallStatus  = "project.status"  // StatusArgs → Status, or Brief
	CallWatch   = "project.watch"   // StatusArgs → stream of Status, the current one first
	CallList    = "project.list"    // NoArgs → Projects
	CallHistory = "project.history" // HistoryArgs → History
	CallEnv     = "project.env"     // EnvArgs → Env
	CallWait    = "project.wait"    // WaitArgs → stream of Event
	CallStart   = "service.start"   // ServiceArgs → stream of Event
	CallStop    = "service.stop"    // ServiceArgs → stream of Event
	CallRestart = "service.restart" // ServiceArgs → stream of Event
	CallRun     = "service.run"     // RunArgs → stream of Event, then the last one carries Target
	CallLogs    = "logs.read"       // LogsArgs → stream of LogLine
	CallStore   = "logs.store"      // LogsArgs → stream of LogStore
	CallDoctor  = "doctor"          // NoArgs → Doctor
	CallLeft    = "leftovers"       // LeftArgs → Leftovers
	CallImages  = "images.list"     // NoArgs → Images
	CallPrune   = "images.prune"    // PruneArgs → Pruned
	CallStopAll = "server.stop"     // NoArgs → stream of Event; the daemon ends when done
)

// NoArgs is for calls that take none.
type NoArgs struct{}

// Daemon answers ping.
type Daemon struct {
	PID       int    `json:"pid"`
	Version   string `json:"version"`
	Protocol  int    `json:"protocol"`
	StartedAt string `json:"started_at"` // RFC 3339, or ""
	State     string `json:"state_dir"`
	Socket    string `json:"socket"`
	Log       string `json:"log"`
	Wanted    int    `json:"wanted"`   // services that are wanted, over all projects
	Restored  bool   `json:"restored"` // what an earlier daemon left has been dealt with
}

// Project says which project a call is about: the directory of its file, and
// the file when it is not the usual one.
type Project struct {
	Dir      string   `json:"dir"`
	File     string   `json:"file,omitempty"`
	Profiles []string `json:"profiles,omitempty"`
}

// UpArgs asks for services to be up.
type UpArgs struct {
	Project
	Services      []string `json:"services,omitempty"` // none is all
	Env           []string `json:"env,omitempty"`      // the client's environment, "KEY=value"
	NoDeps        bool     `json:"no_deps,omitempty"`
	ForceRecreate bool     `json:"force_recreate,omitempty"`
	Pull          string   `json:"pull,omitempty"`   // "always", "missing", "never"; empty is missing
	Detach        bool     `json:"detach,omitempty"` // done once the plan is accepted
	WaitTimeout   string   `json:"wait_timeout,omitempty"`
}

// DownArgs asks for services to be down and, with Volumes, their data deleted.
type DownArgs struct {
	Project
	Services []string `json:"services,omitempty"`
	Volumes  bool     `json:"volumes,omitempty"`
	Force    bool     `json:"force,omitempty"`  // kill at once
	Verify   bool     `json:"verify,omitempty"` // look afterwards, and fail when something is there that should not be
}

// ServiceArgs names the services of start, stop and restart.
type ServiceArgs struct {
	Project
	Services    []string `json:"services"`
	Env         []string `json:"env,omitempty"` // start, restart: the client's environment
	WaitTimeout string   `json:"wait_timeout,omitempty"`
}

// StatusArgs asks for a snapshot.
type StatusArgs struct {
	Project
	Services []string `json:"services,omitempty"`
	Reveal   bool     `json:"reveal,omitempty"`
	Settle   bool     `json:"settle,omitempty"` // wait until a restore under way has come to rest
	Brief    bool     `json:"brief,omitempty"`  // project.status: a Brief is enough
}

// HistoryArgs asks for the runs of services.
type HistoryArgs struct {
	Project
	Services []string `json:"services,omitempty"`
}

// WaitArgs waits for services.
type WaitArgs struct {
	Project
	Services []string `json:"services,omitempty"`
	For      string   `json:"for,omitempty"` // "ready" (the default) or "exited"
	Timeout  string   `json:"timeout,omitempty"`
}

// EnvArgs asks for an environment. Without Service it is what a dependent of
// every service gets.
type EnvArgs struct {
	Project
	Service string   `json:"service,omitempty"`
	Env     []string `json:"env,omitempty"` // the client's, for what is inherited
	Reveal  bool     `json:"reveal,omitempty"`
}

// RunArgs asks where and how a command is to be run for a service.
type RunArgs struct {
	Project
	Service string   `json:"service"`
	Mode    string   `json:"mode"`          // "run": on the host, dependencies up; "exec": inside the instance
	Env     []string `json:"env,omitempty"` // the client's
	NoDeps  bool     `json:"no_deps,omitempty"`
}

// LogsArgs selects log lines.
type LogsArgs struct {
	Project
	Services []string `json:"services,omitempty"`
	Follow   bool     `json:"follow,omitempty"`
	Tail     int      `json:"tail"` // the last N lines of each service; -1 is all
	Since    string   `json:"since,omitempty"`
	Until    string   `json:"until,omitempty"`
	After    uint64   `json:"after,omitempty"`
	Grep     string   `json:"grep,omitempty"`
	Stream   string   `json:"stream,omitempty"` // "stdout", "stderr"
	Output   bool     `json:"output,omitempty"` // only what services wrote, no events
	Run      string   `json:"run,omitempty"`    // "current", "previous", "recent" (the previous one and all after it), a number; empty is all
}

// LogStore is where the log of the one service that was named lies, and which of
// its runs are asked for: for a client on this machine that reads the files
// itself. One comes; with Follow the stream ends when the daemon does.
type LogStore struct {
	Dir     string `json:"dir"`
	FromRun int    `json:"from_run,omitempty"` // the first run; 0 is open
	ToRun   int    `json:"to_run,omitempty"`   // the last run; 0 is open
}

// Status is the services of a project at one moment, as "status --json" prints them.
type Status struct {
	Version  int         `json:"version"`
	Project  ProjectName `json:"project"`
	Daemon   DaemonName  `json:"daemon"`
	Services []Service   `json:"services"`
}

// ProjectName is a project as people know it. Label is Name, or "shop
// (shop-2)" when another directory has that name too.
type ProjectName struct {
	Name  string `json:"name"`
	Dir   string `json:"dir"`
	Label string `json:"label,omitempty"`
}

// DaemonName is the daemon as status shows it; PID 0 when none runs.
type DaemonName struct {
	PID       int    `json:"pid"`
	Version   string `json:"version"`
	StartedAt string `json:"started_at"` // RFC 3339, or ""
}

// Service is one service of a Status. Keys are stable; 0 and "" mean none.
type Service struct {
	Name        string         `json:"name"`
	Type        string         `json:"type"`
	Runtime     string         `json:"runtime"`
	Desired     string         `json:"desired"` // "up", "down"
	State       string         `json:"state"`
	Health      string         `json:"health"`
	PID         int            `json:"pid"`
	ContainerID string         `json:"container_id"`
	Port        int            `json:"port"`
	Ports       map[string]int `json:"ports"`
	URL         string         `json:"url"`
	Run         int            `json:"run"`
	Restarts    int            `json:"restarts"`
	ExitCode    *int           `json:"exit_code"`
	Signal      string         `json:"signal"`
	StartedAt   string         `json:"started_at"` // RFC 3339, or ""
	ReadyAt     string         `json:"ready_at"`
	Reason      string         `json:"reason"`
	Code        string         `json:"code,omitempty"` // of the failure: "exited", "stop_failed"
	Hint        string         `json:"hint,omitempty"`
	DependsOn   []string       `json:"depends_on"`
}

// Brief is of a Status what a table shows. Keys mean what they mean there; one
// that would say nothing is left out, and StartedAt where ReadyAt is.
type Brief struct {
	Services []BriefService `json:"services"`
}

// BriefService is one service of a Brief.
type BriefService struct {
	Name      string         `json:"name"`
	Desired   string         `json:"desired"`
	State     string         `json:"state"`
	Health    string         `json:"health,omitempty"`
	Port      int            `json:"port,omitempty"`
	Ports     map[string]int `json:"ports,omitempty"`
	URL       string         `json:"url,omitempty"`
	Restarts  int            `json:"restarts,omitempty"`
	StartedAt string         `json:"started_at,omitempty"`
	ReadyAt   string         `json:"ready_at,omitempty"`
	Reason    string         `json:"reason,omitempty"`
}

// Brief is what a table shows of a Status.
func (s *Status) Brief() Brief {
	b := Brief{Services: make([]BriefService, len(s.Services))}
	for i := range s.Services {
		of, out := &s.Services[i], &b.Services[i]
		*out = BriefService{
			Name: of.Name, Desired: of.Desired, State: of.State, Health: of.Health, Port: of.Port, Ports: of.Ports,
			URL: of.URL, Restarts: of.Restarts, StartedAt: of.StartedAt, ReadyAt: of.ReadyAt, Reason: of.Reason,
		}
		if out.Health == "none" {
			out.Health = ""
		}
		if out.ReadyAt != "" {
			out.StartedAt = ""
		}
	}
	return b
}

// Event is one boot event, a line of "up --json". The last of a stream has no Service:
// Event is "done" or "failed", Exit is set.
type Event struct {
	Time    time.Time `json:"time"`
	Service string    `json:"service,omitempty"`
	Event   string    `json:"event"`
	Message string    `json:"message,omitempty"`
	Layer   string    `json:"layer,omitempty"` // of an image that is pulled; without one "progress" is about all of it
	Phase   string    `json:"phase,omitempty"` // of the layer: "waiting", "downloading", "retrying", "downloaded", "unpacking", "done"
	Current int64     `json:"current,omitempty"`
	Total   int64     `json:"total,omitempty"`
	Code    string    `json:"code,omitempty"`
	Hint    string    `json:"hint,omitempty"`
	Lines   []LogLine `json:"lines,omitempty"` // with "failed": the last the service wrote

	Exit      *int       `json:"exit,omitempty"`
	Status    *Status    `json:"status,omitempty"`
	Target    *Target    `json:"target,omitempty"`
	Leftovers *Leftovers `json:"leftovers,omitempty"` // of a down that was asked to verify
}

// What a boot event can say of a service.
const (
	EventPending   = "pending"
	EventPreparing = "preparing"
	EventProgress  = "progress"
	EventStarting  = "starting"
	EventStarted   = "started"
	EventHealthy   = "healthy"
	EventCompleted = "completed"
	EventFailed    = "failed"
	EventStopping  = "stopping"
	EventStopped   = "stopped"
	EventNote      = "note" // a sentence about the service or, without one, the project
	EventDone      = "done"
)

// Target is where and how a client runs a command itself. With Container it
// goes through the engine at Host; otherwise it is a child of the client.
type Target struct {
	Dir       string   `json:"dir"`
	Env       []string `json:"env"`
	Engine    string   `json:"engine,omitempty"`
	Host      string   `json:"host,omitempty"` // of the engine: "unix:///var/run/docker.sock"
	Container string   `json:"container,omitempty"`
}

// LogLine is one line of a log, as "logs --json" prints it.
type LogLine struct {
	Seq          uint64    `json:"seq"`
	Time         time.Time `json:"time"`
	Service      string    `json:"service"`
	Run          int       `json:"run"`
	Stream       string    `json:"stream"` // "stdout", "stderr", "event", "gap"
	Line         string    `json:"line"`
	B64          []byte    `json:"b64,omitempty"` // the bytes, when Line had to be mended to be UTF-8
	Partial      bool      `json:"partial,omitempty"`
	MissingBytes int64     `json:"missing_bytes,omitempty"`
}

// Plan is what up would change.
type Plan struct {
	Changes []Change `json:"changes"`
}

// Change is one step of a Plan.
type Change struct {
	Service string `json:"service"`
	Op      string `json:"op"` // "start", "stop", "restart", "keep"
	Cause   string `json:"cause"`
}

// Projects is every project the daemon knows.
type Projects struct {
	Projects []ProjectSummary `json:"projects"`
}

// ProjectSummary is one line of status --all.
type ProjectSummary struct {
	ProjectName
	Wanted  int       `json:"wanted"`
	Ready   int       `json:"ready"`
	Failed  int       `json:"failed"`
	Missing bool      `json:"missing,omitempty"` // the directory is gone
	UsedAt  time.Time `json:"used_at"`
}

// History is the last runs of services, newest first.
type History struct {
	Runs []Run `json:"runs"`
}

// Run is one run of a service.
type Run struct {
	Service  string `json:"service"`
	Run      int    `json:"run"`
	Start    string `json:"start"` // RFC 3339
	Ready    string `json:"ready"`
	End      string `json:"end"`
	ExitCode *int   `json:"exit_code"`
	Signal   string `json:"signal"`
	Reason   string `json:"reason"`
}

// Env is a resolved environment, sorted by name.
type Env struct {
	Vars []Var `json:"vars"`
}

// Var is one variable and where its value is from. Value is "***" when it is
// a secret and the call did not ask to reveal.
type Var struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // "locald.toml:12", ".env", "injected (db)", "inherited"
	Secret bool   `json:"secret,omitempty"`
}

// Images is the images that locald keeps, and those that projects use in engines.
type Images struct {
	Images []Image  `json:"images"`
	Notes  []string `json:"notes"` // sentences about engines: whose images these are, or that one cannot be asked
}

// Image is an image that is on this machine.
type Image struct {
	Name   string     `json:"name"` // as people write it: "postgres:15"
	Digest string     `json:"digest"`
	Size   int64      `json:"size"`    // bytes of all its files; images may share some
	Engine string     `json:"engine"`  // that keeps it: "builtin", "docker"
	Held   bool       `json:"held"`    // a container of builtin runs from it
	UsedAt string     `json:"used_at"` // RFC 3339, or ""
	UsedBy []ImageUse `json:"used_by"`
}

// ImageUse is a service that is run from an image.
type ImageUse struct {
	Project string `json:"project"` // its label
	Dir     string `json:"dir"`
	Service string `json:"service"`
}

// PruneArgs asks for the images to be removed that no project uses.
type PruneArgs struct {
	All bool `json:"all,omitempty"` // also those that projects use, unless a container runs from them
}

// Pruned is what was removed.
type Pruned struct {
	Removed []Image `json:"removed"`
	Freed   int64   `json:"freed"` // bytes
}

// Doctor is what locald found on this machine.
type Doctor struct {
	Checks []Check `json:"checks"`
}

// Check is one finding. OK false makes doctor exit 1.
type Check struct {
	Area   string `json:"area"` // "engine", "containment", "daemon", "leftovers", "ports", "postgres"
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// LeftArgs asks what is there of a project, or without Dir of everything that
// belongs to the state directory.
type LeftArgs struct {
	Project
	Services []string `json:"services,omitempty"` // none is all
	Volumes  bool     `json:"volumes,omitempty"`  // data should be gone too
}

// Leftovers is what locald made and what is still there, what should not be
// there first.
type Leftovers struct {
	Things []Thing `json:"things"`
}

// Thing is one process, container, network, volume, port or file.
type Thing struct {
	Kind    string `json:"kind"`              // "process", "container", "network", "volume", "port", "file", "engine"
	State   string `json:"state"`             // "left", "unknown", "foreign", "kept", "used"
	Name    string `json:"name"`              // the command, the container's name, the address, the path
	ID      string `json:"id,omitempty"`      // of what an engine has
	PID     int    `json:"pid,omitempty"`     // of a process, or of the one that holds a port
	Engine  string `json:"engine,omitempty"`  // of what an engine has: "docker"
	Project string `json:"project,omitempty"` // its name
	Dir     string `json:"dir,omitempty"`     // the project's
	Service string `json:"service,omitempty"`
	Run     int    `json:"run,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`  // of a file or directory
	Detail  string `json:"detail,omitempty"` // why it is there
	Remedy  string `json:"remedy,omitempty"` // what to type to remove it
}

// What can be the matter with a Thing.
const (
	ThingLeft    = "left"    // belongs to nothing that runs
	ThingUnknown = "unknown" // an engine that could not be asked
	ThingForeign = "foreign" // belongs to a state directory that is not here: locald never removes it
	ThingKept    = "kept"    // data, logs and records, which outlive a stop on purpose
	ThingUsed    = "used"    // belongs to what runs
)

// String names the thing for a sentence: "process 4711 (sleep 1000) of web".
func (t Thing) String() string {
	text := t.Kind + " " + t.Name
	if t.Kind == "process" {
		text = fmt.Sprintf("process %d (%s)", t.PID, t.Name)
	}
	if t.Service != "" {
		text += " of " + t.Service
	}
	if t.Detail != "" {
		text += ": " + t.Detail
	}
	return text
}

// Unwanted is the things that should not be there, or about which nobody can
// tell.
func (l Leftovers) Unwanted() []Thing {
	var unwanted []Thing
	for _, t := range l.Things {
		if t.State == ThingLeft || t.State == ThingUnknown {
			unwanted = append(unwanted, t)
		}
	}
	return unwanted
}

// Verified is the last event of a down with what is there after it: it fails
// when something is that should not be.
func (e Event) Verified(found Leftovers) Event {
	e.Leftovers = &found
	unwanted := found.Unwanted()
	if len(unwanted) == 0 || e.Exit != nil && *e.Exit != 0 {
		return e
	}
	failed := 1
	e.Event, e.Exit, e.Code, e.Hint = EventFailed, &failed, CodeStopFailed, unwanted[0].Remedy
	words := make([]string, len(unwanted))
	for i, t := range unwanted {
		words[i] = t.String()
	}
	e.Message = "still there: " + strings.Join(words, "; ")
	return e
}

// Error is a failure as people see it.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Service string `json:"service,omitempty"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Exit    int    `json:"-"`

	// Problems are all that is wrong with a configuration; the fields above
	// are the first of them.
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// The codes of an Error.
const (
	CodeConfigInvalid     = "config_invalid"
	CodeUnknownService    = "unknown_service"
	CodeUnknownProject    = "unknown_project"
	CodePortTaken         = "port_taken"
	CodeEngineUnavailable = "engine_unavailable"
	CodeDaemonUnavailable = "daemon_unavailable"
	CodeVersionMismatch   = "version_mismatch"
	CodeImagePull         = "image_pull"
	CodeCommandMissing    = "command_missing"
	CodeWorkdirMissing    = "workdir_missing"
	CodeProbeTimeout      = "probe_timeout"
	CodeExited            = "exited"
	CodeStopFailed        = "stop_failed"
	CodeStateDamaged      = "state_damaged"
	CodeDiskFull          = "disk_full"
	CodePermissionDenied  = "permission_denied"
	CodeInvalidRequest    = "invalid_request"
	CodeTimeout           = "timeout"
	CodeInternal          = "internal"
)
