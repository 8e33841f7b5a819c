package state

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/locald/locald/runtime"
)

// Seen is what a state directory holds, for those who only look. What is not
// there or cannot be read is empty.
type Seen struct {
	Owner    runtime.Owner
	Daemon   Daemon
	Projects []SeenProject
}

// SeenProject is one project of a state directory. Without a readable record it
// has an ID and no more.
type SeenProject struct {
	Project
	Services    map[string]Service
	Environment Environment
}

// Look reads a state directory and changes nothing: nothing is made, and what
// is damaged stays where it is.
func (s Store) Look() Seen {
	seen := Seen{Owner: ownerIn(s.Dir)}
	_ = Read(filepath.Join(s.Dir, daemonFile), &seen.Daemon) // empty where it cannot be read, as promised
	entries, _ := os.ReadDir(filepath.Join(s.Dir, "projects"))
	for _, e := range entries {
		if e.IsDir() {
			seen.Projects = append(seen.Projects, s.lookAt(e.Name()))
		}
	}
	return seen
}

func (s Store) lookAt(id string) SeenProject {
	p := SeenProject{Services: map[string]Service{}}
	if err := Read(filepath.Join(s.Project(id), projectFile), &p.Project); err != nil || p.ID != id {
		p.Project = Project{ID: id}
	}
	_ = Read(filepath.Join(s.Project(id), environFile), &p.Environment) // empty where it cannot be read, as promised
	if content, err := content(s.RecordsFile(id)); err == nil {
		lines, _ := decode(content) // those that cannot be read are left out
		(&Records{known: p.Services}).take(lines)
	}
	return p
}

// ownerIn is the identity of a state directory; empty when it has none.
func ownerIn(dir string) runtime.Owner {
	var kept struct {
		Instance string `json:"instance"`
	}
	if err := Read(filepath.Join(dir, InstanceFile), &kept); err != nil {
		return ""
	}
	return runtime.Owner(kept.Instance)
}

// Owners is the identity of every state directory beside this one: the user's
// own and those of the sandboxes.
func (p Places) Owners() []runtime.Owner {
	root := p.Dir
	if p.Sandbox != "" {
		root = filepath.Dir(filepath.Dir(p.Dir))
	}
	var owners []runtime.Owner
	sandboxes, _ := filepath.Glob(filepath.Join(escapeGlob(root), "sandboxes", "*"))
	for _, dir := range append(sandboxes, root) {
		if owner := ownerIn(dir); owner != "" {
			owners = append(owners, owner)
		}
	}
	return owners
}

// escapeGlob makes a path stand for itself in a pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
