package config

import "time"

// Project is a project's file (or files), read and checked. References
// ("${services.db.url}") are still in the values; package env resolves them.
type Project struct {
	Name     string // from the file, or the directory's name
	Dir      string // absolute, symbolic links resolved
	File     string // absolute path of locald.toml or of the Procfile
	Engine   string // "auto" unless written
	Inherit  Inherit
	Logs     Logs
	EnvFiles []EnvFile  // the project's own, in the order they are read
	Services []*Service // in the order of the file
	Sources  []Source   // every file that was read, for a record

	At map[string]Pos // of each key of [project] that is written
}

// Service returns the service of that name, or nil.
func (p *Project) Service(name string) *Service {
	for _, s := range p.Services {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Source is one file as it was read.
type Source struct {
	Path    string `json:"path"`
	Content []byte `json:"content"`
}

// Inherit says which variables of the client process services inherit.
type Inherit struct {
	All   bool
	Names []string // when not All
}

// Logs says how much of what the project's services wrote is kept.
type Logs struct {
	Keep time.Duration // since it was written
	Size int64         // bytes, of all services together
}

// EnvFile is a file of variables, read and parsed.
type EnvFile struct {
	Path string // as shown: relative to the project's directory when inside it
	Vars []Var
}

// Var is one variable as written.
type Var struct {
	Name, Value string
	Pos         Pos
}

// Pos is where something is written; Line and Column count from 1.
type Pos struct {
	File         string // relative to the project's directory when inside it
	Line, Column int
}

// The types a service can have.
const (
	TypeExec      = "exec"
	TypeContainer = "container"
	TypeTask      = "task"
	TypeWorker    = "worker"
	TypePostgres  = "postgres"
)

// Service is what was written of one service, defaults filled in.
type Service struct {
	Name string
	Type string         // one of the types; inferred when not written
	Pos  Pos            // of the table's header
	At   map[string]Pos // of each key that is written, "env.LOG" for those below

	Command   Command
	Workdir   string       // absolute; of a container: inside it, "" is the image's
	DependsOn []Dependency // written ones first, in order, then those that references imply
	Env       []Var
	EnvFiles  []EnvFile

	Port     int            // 0: not written; 5432 then for a container whose image is a Postgres
	HostPort int            // containers: 0 is a free one
	Ports    map[string]int // 0: a free one (processes only)
	Scheme   string         // "" unless written

	Health      Health
	Restart     string // "no", "on-failure", "always"
	Backoff     time.Duration
	MaxRestarts int
	StopSignal  string // "SIGTERM"; "" when not written
	StopTimeout time.Duration
	Profiles    []string

	// Containers (Image not empty, or Build not nil).
	Image      string
	Build      *Build   // what the image is built from; it is then called Image where that is written
	Entrypoint []string // nil: the image's
	User       string
	Network    string // "" or "host"
	ReadOnly   bool
	Tmpfs      []string
	Memory     int64 // bytes
	CPUs       float64
	Labels     map[string]string
	Volumes    []Volume
	Allow      []string // what is refused unless it is named: DockerSocket

	// Postgres.
	Postgres *Postgres
}

// Contained reports whether the service runs in a container because an image
// or a build is written. A postgres service without one may still come to.
func (s *Service) Contained() bool { return s.Image != "" || s.Build != nil }

// HasPort reports whether the service has a port of its own: what PORT,
// <NAME>_PORT and ${services.NAME.port} are. An exec always has, a container
// when it is written.
func (s *Service) HasPort() bool {
	switch s.Type {
	case TypeExec, TypePostgres:
		return true
	case TypeContainer:
		return s.Port != 0
	}
	return false
}

// Command is what a service runs: a line for "sh -c", or an argv.
type Command struct {
	Shell string
	Argv  []string
}

// Empty reports whether no command is written.
func (c Command) Empty() bool { return c.Shell == "" && len(c.Argv) == 0 }

// Args is the argv that runs the command.
func (c Command) Args() []string {
	if c.Shell != "" {
		return []string{"sh", "-c", c.Shell}
	}
	return c.Argv
}

// Dependency is a service that must have come to Condition first.
type Dependency struct {
	Service   string
	Condition string // "ready", "started", "completed"
	Implied   bool   // by a reference, not written
	Pos       Pos    // of the entry, or of the value with the reference
}

// The conditions of a Dependency.
const (
	Ready     = "ready"
	Started   = "started"
	Completed = "completed"
)

// Health says how a service's readiness is found out. Exactly one of HTTP,
// TCP, Command, Log and Notify is set, or None, or nothing, and then the
// service's type decides.
type Health struct {
	Written bool
	None    bool
	HTTP    string // a path, ":port/path" or a whole URL
	TCP     int    // a port; -1: the service's own
	Command Command
	Log     string // a regular expression
	Notify  bool

	Interval    time.Duration
	Timeout     time.Duration
	Retries     int
	StartPeriod time.Duration
}

// Build is what an image is built from.
type Build struct {
	Context    string // absolute path of a directory
	Dockerfile string // absolute path
	Target     string // "" is the last stage
	Args       []Var  // not secret: they can be read off the image
}

// Volume is one entry of volumes. A Source that begins with a reference is
// judged by its first character once it is resolved.
type Volume struct {
	Source   string // a volume's name, or an absolute host path
	Bind     bool
	Target   string
	ReadOnly bool
}

// Postgres is what a service of type postgres says of itself.
type Postgres struct {
	Version  string // "16"; "" is any
	Database string // defaults filled in
	User     string
	Password string   // "" is generated
	Init     []string // absolute paths
	Runtime  string   // "auto", "container", "process"
}
