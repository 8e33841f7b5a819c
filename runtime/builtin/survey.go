package builtin

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

// What there is of containers in a state directory.
const (
	MadeContainer = "container" // what it has written over its image
	MadeVolume    = "volume"
)

// Made is something that containers have left, or will, in a state directory.
type Made struct {
	Kind    string
	Path    string
	Name    string        // of a volume
	Project string        // by its id
	Service string        // that made it
	Run     runtime.RunID // of a container
}

// Survey lists the containers and the volumes in a state directory, whatever
// runs. It changes nothing.
func Survey(dir string) []Made {
	var made []Made
	for _, path := range below(filepath.Join(dir, "containers")) {
		project := filepath.Base(filepath.Dir(path))
		service, run, _ := cutLast(filepath.Base(path), "-")
		number, err := strconv.Atoi(run)
		if err != nil {
			continue
		}
		id := runtime.Spec{Project: runtime.Project{ID: project}, Service: service, Run: number}.ID()
		made = append(made, Made{Kind: MadeContainer, Path: path, Project: project, Service: service, Run: id})
	}
	for _, path := range below(filepath.Join(dir, "volumes")) {
		maker, _ := os.ReadFile(filepath.Join(path, outer.VolumeMaker)) // empty where its making was cut off
		made = append(made, Made{Kind: MadeVolume, Path: path, Name: filepath.Base(path), Project: filepath.Base(filepath.Dir(path)), Service: string(maker)})
	}
	return made
}

// below is what is in the directories of a directory.
func below(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir), "*", "*"))
	return found
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
