package state

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locald/locald/runtime"
)

// InstanceFile is the name of the file with the identity of a state directory.
const InstanceFile = "instance.json"

const (
	daemonFile  = "daemon.json"
	projectFile = "project.json"
	environFile = "environment.json"
	recordsFile = "services.jsonl"
	numbersFile = "numbers"
)

// Daemon is what the daemon that runs, or ran last, has written of itself.
type Daemon struct {
	Format    int       `json:"format"`
	PID       int       `json:"pid"`
	Version   string    `json:"version"`
	Socket    string    `json:"socket"`
	Log       string    `json:"log"`
	StartedAt time.Time `json:"started_at"`
}

// Project is a project that locald knows, and what is wanted of it.
type Project struct {
	Format   int             `json:"format"`
	ID       string          `json:"id"`
	Name     string          `json:"name"`
	Dir      string          `json:"dir"`
	File     string          `json:"file"`
	Profiles []string        `json:"profiles,omitempty"`
	UsedAt   time.Time       `json:"used_at"`
	Engine   string          `json:"engine,omitempty"`  // that its containers went to last
	Engines  []string        `json:"engines,omitempty"` // that its services may have run in
	Wants    map[string]bool `json:"wants"`             // up or down, for each service that was ever asked for
}

func (p *Project) valid() error {
	if p.ID == "" || !filepath.IsAbs(p.Dir) {
		return fmt.Errorf("project %q in %q is none", p.ID, p.Dir)
	}
	return nil
}

// Went notes that containers of the project go to an engine; "auto" is one that
// nobody knows yet.
func (p *Project) Went(engine string) {
	if engine != "auto" {
		p.Engine = engine
	}
	if !slices.Contains(p.Engines, engine) {
		p.Engines = append(slices.Clone(p.Engines), engine)
	}
}

// Wanted counts the services that are wanted up.
func (p Project) Wanted() int {
	n := 0
	for _, up := range p.Wants {
		if up {
			n++
		}
	}
	return n
}

// Environment is the one file of a project that holds secrets: the environment
// and the configuration of the last up, for a restore.
type Environment struct {
	Format  int      `json:"format"`
	Env     []string `json:"env"`
	Sources []Source `json:"sources"`
}

// Source is a file of the configuration as it was read.
type Source struct {
	Path    string `json:"path"`
	Content []byte `json:"content"`
}

// Service is what is remembered of one service.
type Service struct {
	Format int            `json:"format"`
	Name   string         `json:"name"`
	Task   bool           `json:"task,omitempty"`
	Ports  map[string]int `json:"ports,omitempty"`  // the host ports it had; "" is the main one
	Deaf   bool           `json:"deaf,omitempty"`   // its last run did not listen on the PORT it was given
	Volume bool           `json:"volume,omitempty"` // the data of a managed service is in a container volume
	Major  string         `json:"major,omitempty"`  // the version that made it
	Making bool           `json:"making,omitempty"` // what is in the volume is not known to be whole
	Engine string         `json:"engine,omitempty"` // that has the volume
	Streak Streak         `json:"streak,omitzero"`
	Runs   []Run          `json:"runs,omitempty"` // oldest first, the last keepRuns
}

// Streak is how often a service has failed in a row, and how long it rests for
// that.
type Streak struct {
	Fails   int       `json:"fails"`
	DelayMS int64     `json:"delay_ms"`       // the last rest
	Until   time.Time `json:"until,omitzero"` // when it is over
	Reason  string    `json:"reason,omitempty"`
}

func (s *Service) valid() error {
	last := 0
	for _, r := range s.Runs {
		if r.Run <= last {
			return fmt.Errorf("run %d comes after run %d", r.Run, last)
		}
		last = r.Run
	}
	return nil
}

// keepRuns is how many runs of each service are remembered.
const keepRuns = 100

// Run is one run of a service.
type Run struct {
	Run    int       `json:"run"`
	Start  time.Time `json:"start,omitzero"`
	Ready  time.Time `json:"ready,omitzero"`
	End    time.Time `json:"end,omitzero"`
	Code   *int      `json:"exit_code,omitempty"`
	Signal string    `json:"signal,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Next is the number of the service's next run.
func (s Service) Next() int {
	if n := len(s.Runs); n > 0 {
		return s.Runs[n-1].Run + 1
	}
	return 1
}

// Started reports whether an instance of the service may ever have been.
func (s Service) Started() bool {
	return slices.ContainsFunc(s.Runs, func(r Run) bool { return !r.Start.IsZero() || r.End.IsZero() })
}

// Done reports whether the service is a task whose last run completed.
func (s Service) Done() bool {
	if !s.Task || len(s.Runs) == 0 {
		return false
	}
	last := s.Runs[len(s.Runs)-1]
	return last.Code != nil && *last.Code == 0 && last.Signal == ""
}

// With is the service with a run added, or replaced when it has that number.
// Runs stay in the order of their numbers, in whatever order they are told of.
func (s Service) With(r Run) Service {
	s.Runs = slices.Clone(s.Runs)
	i, there := s.find(r.Run)
	if there {
		s.Runs[i] = r
	} else {
		s.Runs = slices.Insert(s.Runs, i, r)
	}
	if extra := len(s.Runs) - keepRuns; extra > 0 {
		s.Runs = slices.Delete(s.Runs, 0, extra)
	}
	return s
}

// find is where a run is among the service's, or would be.
func (s Service) find(run int) (i int, there bool) {
	return slices.BinarySearchFunc(s.Runs, run, func(known Run, number int) int { return cmp.Compare(known.Run, number) })
}

// Store reads and writes the files below a state directory.
type Store struct{ Dir string }

// identity is the file that says whose the marks and labels are.
type identity struct {
	Format   int    `json:"format"`
	Instance string `json:"instance"`
	Dir      string `json:"dir,omitempty"`     // the directory that it was made for
	Machine  string `json:"machine,omitempty"` // the same, of the machine's own identity
}

var instanceID = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9a-f]{16}$`)
})

func (i *identity) valid() error {
	if !instanceID().MatchString(i.Instance) {
		return fmt.Errorf("%q is no identity", i.Instance)
	}
	return nil
}

// New reports whether the state directory has had no identity so far: then
// nothing can be anywhere that carries one.
func (s Store) New() bool {
	path := filepath.Join(s.Dir, InstanceFile)
	_, err1 := os.Lstat(path)
	_, err2 := os.Lstat(previous(path))
	return errors.Is(err1, fs.ErrNotExist) && errors.Is(err2, fs.ErrNotExist)
}

// Owner is the identity of the state directory, made when there is none. A
// later locald's is used as it is: what carries its marks has to be found. An
// error that comes with an owner is damage that people should know of.
func (s Store) Owner() (runtime.Owner, error) {
	path := filepath.Join(s.Dir, InstanceFile)
	var kept identity
	if content, err := content(path); err == nil && json.Unmarshal(content, &kept) == nil && kept.Format > Format && kept.valid() == nil {
		return runtime.Owner(kept.Instance), nil
	}
	err := Salvage(path, &kept, time.Now())
	var damaged *Damaged
	switch {
	case kept.Instance != "":
		return s.own(kept, err)
	case errors.As(err, &damaged):
		damaged.Err = fmt.Errorf("%w: what was started under the old identity is not found any more", damaged.Err)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err != nil:
		return "", err
	}
	owner, failed := s.newOwner()
	if failed != nil {
		return "", failed
	}
	return owner, err
}

// own is the identity that was read, unless the directory is a copy: what
// carries the marks then is somebody else's, and nothing of it is touched.
func (s Store) own(kept identity, problem error) (runtime.Owner, error) {
	switch machine := machineID(); {
	case kept.Machine != "" && machine != "" && kept.Machine != machine:
		problem = errors.Join(problem, fmt.Errorf("%s is from another machine: it has a new identity, and services start fresh", s.Dir))
	case kept.Dir == "" || kept.Dir == s.Dir:
		return runtime.Owner(kept.Instance), problem
	default:
		var there identity
		if Read(filepath.Join(kept.Dir, InstanceFile), &there) != nil || there.Instance != kept.Instance {
			return runtime.Owner(kept.Instance), errors.Join(problem, s.SaveOwner(runtime.Owner(kept.Instance))) // it was moved
		}
		problem = errors.Join(problem, fmt.Errorf("%s is a copy of %s: it has a new identity, and services start fresh", s.Dir, kept.Dir))
	}
	owner, err := s.newOwner()
	if err != nil {
		return "", err
	}
	return owner, problem
}

func (s Store) newOwner() (runtime.Owner, error) {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return "", err
	}
	owner := runtime.Owner(hex.EncodeToString(id))
	return owner, s.SaveOwner(owner)
}

// machineID tells this machine from others; empty where nothing does.
func machineID() string {
	text, err := os.ReadFile("/etc/machine-id")
	if id := strings.TrimSpace(string(text)); err == nil && id != "" {
		return digest(id)
	}
	return ""
}

// SaveOwner writes the identity of the state directory, twice: it is never
// written again, and without it nothing that runs is found. The copy is for when
// the file is damaged.
func (s Store) SaveOwner(owner runtime.Owner) error {
	path := filepath.Join(s.Dir, InstanceFile)
	kept := identity{Format, string(owner), s.Dir, machineID()}
	if err := Write(path, kept, Care{}); err != nil {
		return err
	}
	return Write(path, kept, Care{Previous: true})
}

// Settle has the identity survive a power cut. No process does, so that it is
// time enough before the first thing is made that does and carries it.
func (s Store) Settle() error {
	f, err := os.Open(filepath.Join(s.Dir, InstanceFile))
	if err != nil {
		return unwritten(s.Dir, err)
	}
	defer func() { _ = f.Close() }()
	if err := errors.Join(f.Sync(), syncDir(s.Dir)); err != nil {
		return unwritten(s.Dir, err)
	}
	return nil
}

// SaveDaemon writes down where this daemon is to be found.
func (s Store) SaveDaemon(d Daemon) error {
	d.Format = Format
	path := filepath.Join(s.Dir, daemonFile)
	var before Daemon
	_ = Salvage(path, &before, time.Now()) // of what was there nothing is missed, but it may be in the way
	return Write(path, d, Care{})
}

// Project is the directory of one project's files.
func (s Store) Project(id string) string { return filepath.Join(s.Dir, "projects", id) }

// RecordsFile has what is remembered of a project's services.
func (s Store) RecordsFile(project string) string {
	return filepath.Join(s.Project(project), recordsFile)
}

// Log is the directory of a service's log store.
func (s Store) Log(project, service string) string {
	return filepath.Join(s.Project(project), "logs", service)
}

// Data is the directory of a managed service's data.
func (s Store) Data(project, service string) string {
	return filepath.Join(s.Project(project), "data", service)
}

// Notify is the path of a service's notification socket.
func (s Store) Notify(project, service string) string {
	return Short(filepath.Join(s.Dir, "notify", project+"-"+service))
}

// NotifyNobody is the path of the socket for what services notify that nobody
// waits for.
func (s Store) NotifyNobody() string { return Short(filepath.Join(s.Dir, "notify", "nobody")) }

// Projects reads what is recorded of every project. What cannot be read is
// named in problems and put aside where it is damaged; it is left out when there
// is no copy before it.
func (s Store) Projects() (projects []Project, problems []error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, "projects"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, err)
	}
	for _, e := range entries {
		var p Project
		err := Salvage(filepath.Join(s.Project(e.Name()), projectFile), &p, time.Now())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			problems = append(problems, err)
		}
		switch {
		case p.ID == e.Name():
			projects = append(projects, p)
		case p.ID != "":
			problems = append(problems, fmt.Errorf("%s: is about project %q", s.Project(e.Name()), p.ID))
		}
	}
	return projects, problems
}

// Lost is what became of a project's record when it was put aside and there is
// no other: what was wanted is not known. Otherwise it is nil.
func (s Store) Lost(project string) *Damaged {
	path := filepath.Join(s.Project(project), projectFile)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	aside, _ := filepath.Glob(path + ".bad-*") // the pattern is well-formed
	if len(aside) == 0 {
		return nil
	}
	return &Damaged{Path: path, Aside: slices.Max(aside), Err: errors.New("what was wanted is not known")}
}

// Aside lists every damaged file that was put aside.
func (s Store) Aside() []string {
	var all []string
	for _, pattern := range []string{"*.bad-*", "projects/*/*.bad-*", "projects/*/services/*.bad-*"} {
		found, _ := filepath.Glob(filepath.Join(s.Dir, pattern)) // well-formed, but for a directory with a [ in its name
		all = append(all, found...)
	}
	return all
}

// SaveProject writes down what is wanted. It survives a power cut.
func (s Store) SaveProject(p Project) error {
	p.Format = Format
	return Write(filepath.Join(s.Project(p.ID), projectFile), p, Care{Power: true, Previous: true})
}

// Environment reads the environment of the last up.
func (s Store) Environment(project string) (Environment, error) {
	var e Environment
	err := Salvage(filepath.Join(s.Project(project), environFile), &e, time.Now())
	return e, err
}

// SaveEnvironment keeps the environment of an up, for a restore. No other copy
// is kept: it has secrets.
func (s Store) SaveEnvironment(project string, e Environment) error {
	e.Format = Format
	return Write(filepath.Join(s.Project(project), environFile), e, Care{})
}

var notInID = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`[^a-z0-9_-]+`)
})

// NewID is the id of a project that is not known yet: its name, for people,
// and what tells its directory from every other.
func NewID(name, dir string, owner runtime.Owner) string {
	return notInID().ReplaceAllString(strings.ToLower(name), "-") + "-" + digest(string(owner)+"\x00"+dir)
}

// Wanted reports whether services are on record that should be up, so that a
// daemon is missing when none runs. A record that cannot be read is for the
// daemon to look at.
func Wanted(p Places) bool {
	s := Store{Dir: p.Dir}
	entries, _ := os.ReadDir(filepath.Join(p.Dir, "projects"))
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		var project Project
		path := filepath.Join(s.Project(e.Name()), projectFile)
		err := Read(path, &project)
		if errors.Is(err, fs.ErrNotExist) {
			_, copied := os.Lstat(previous(path))
			return copied == nil || s.Lost(e.Name()) != nil
		}
		return err != nil || project.Wanted() > 0
	})
}
