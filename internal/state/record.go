package state

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/locald/locald/runtime"
)

const (
	daemonFile   = "daemon.json"
	instanceFile = "instance.json"
	projectFile  = "project.json"
	environFile  = "environment.json"
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
	Engines  []string        `json:"engines,omitempty"` // that its services may have run in
	Wants    map[string]bool `json:"wants"`             // up or down, for each service that was ever asked for
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
	Runs   []Run          `json:"runs"`             // oldest first, the last keepRuns
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
	if len(s.Runs) == 0 {
		return 1
	}
	return s.Runs[len(s.Runs)-1].Run + 1
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
func (s Service) With(r Run) Service {
	s.Runs = slices.Clone(s.Runs)
	if n := len(s.Runs); n > 0 && s.Runs[n-1].Run == r.Run {
		s.Runs[n-1] = r
	} else {
		s.Runs = append(s.Runs, r)
	}
	if extra := len(s.Runs) - keepRuns; extra > 0 {
		s.Runs = slices.Delete(s.Runs, 0, extra)
	}
	return s
}

// Store reads and writes the files below a state directory.
type Store struct{ Dir string }

// Owner is the identity of the state directory, made when there is none.
func (s Store) Owner() (runtime.Owner, error) {
	path := filepath.Join(s.Dir, instanceFile)
	var kept struct {
		Format   int    `json:"format"`
		Instance string `json:"instance"`
	}
	err := Salvage(path, &kept, time.Now())
	var damaged *Damaged
	switch {
	case err == nil && kept.Instance != "":
		return runtime.Owner(kept.Instance), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &damaged):
		return "", err
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return "", err
	}
	kept.Format, kept.Instance = Format, hex.EncodeToString(id)
	return runtime.Owner(kept.Instance), Write(path, kept, true)
}

// SaveDaemon writes down where this daemon is to be found.
func (s Store) SaveDaemon(d Daemon) error {
	d.Format = Format
	return Write(filepath.Join(s.Dir, daemonFile), d, false)
}

// Project is the directory of one project's files.
func (s Store) Project(id string) string { return filepath.Join(s.Dir, "projects", id) }

// Log is the directory of a service's log store.
func (s Store) Log(project, service string) string {
	return filepath.Join(s.Project(project), "logs", service)
}

// Data is the directory of a managed service's data.
func (s Store) Data(project, service string) string {
	return filepath.Join(s.Project(project), "data", service)
}

// Projects reads what is recorded of every project. What cannot be read is
// named in problems, put aside where it is damaged, and left out.
func (s Store) Projects() (projects []Project, problems []error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, "projects"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, err)
	}
	for _, e := range entries {
		var p Project
		err := Salvage(filepath.Join(s.Project(e.Name()), projectFile), &p, time.Now())
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err == nil && p.ID != e.Name():
			problems = append(problems, fmt.Errorf("%s: is about project %q", s.Project(e.Name()), p.ID))
		case err != nil:
			problems = append(problems, err)
		default:
			projects = append(projects, p)
		}
	}
	return projects, problems
}

// SaveProject writes down what is wanted. It survives a power cut.
func (s Store) SaveProject(p Project) error {
	p.Format = Format
	return Write(filepath.Join(s.Project(p.ID), projectFile), p, true)
}

// Environment reads the environment of the last up.
func (s Store) Environment(project string) (Environment, error) {
	var e Environment
	err := Salvage(filepath.Join(s.Project(project), environFile), &e, time.Now())
	return e, err
}

// SaveEnvironment keeps the environment of an up, for a restore.
func (s Store) SaveEnvironment(project string, e Environment) error {
	e.Format = Format
	return Write(filepath.Join(s.Project(project), environFile), e, false)
}

// Services reads what is remembered of a project's services.
func (s Store) Services(project string) (services map[string]Service, problems []error) {
	services = map[string]Service{}
	dir := filepath.Join(s.Project(project), "services")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, err)
	}
	for _, e := range entries {
		name, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord || strings.HasPrefix(name, ".") {
			continue
		}
		var svc Service
		switch err := Salvage(filepath.Join(dir, e.Name()), &svc, time.Now()); {
		case err != nil:
			problems = append(problems, err)
		case svc.Name == name:
			services[name] = svc
		}
	}
	return services, problems
}

// SaveService writes down what is remembered of one service.
func (s Store) SaveService(project string, svc Service) error {
	svc.Format = Format
	return Write(filepath.Join(s.Project(project), "services", svc.Name+".json"), svc, false)
}

// Forget removes what is remembered of a service that has left its project.
func (s Store) Forget(project, service string) error {
	return os.Remove(filepath.Join(s.Project(project), "services", service+".json"))
}

var notInID = regexp.MustCompile(`[^a-z0-9_-]+`)

// NewID is the id of a project that is not known yet: its name, for people,
// and what tells its directory from every other.
func NewID(name, dir string, owner runtime.Owner) string {
	return notInID.ReplaceAllString(strings.ToLower(name), "-") + "-" + digest(string(owner)+"\x00"+dir)
}

// Wanted reports whether services are on record that should be up, so that a
// daemon is missing when none runs.
func Wanted(p Places) bool {
	entries, _ := os.ReadDir(filepath.Join(p.Dir, "projects"))
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		var project Project
		err := Read(filepath.Join(p.Dir, "projects", e.Name(), projectFile), &project)
		return err == nil && project.Wanted() > 0
	})
}
