package outer

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/locald/locald/runtime"
)

// Containers lists the directories of containers in a folder of a state
// directory, whatever runs.
func Containers(dir, folder string) (all []runtime.Files) {
	for _, path := range below(filepath.Join(dir, folder)) {
		name := filepath.Base(path)
		at := strings.LastIndex(name, "-")
		if at < 0 {
			continue
		}
		run, err := strconv.Atoi(name[at+1:])
		if err != nil {
			continue
		}
		l := runtime.Files{Path: path, Project: filepath.Base(filepath.Dir(path)), Service: name[:at]}
		l.Run = runtime.Spec{Project: runtime.Project{ID: l.Project}, Service: l.Service, Run: run}.ID()
		all = append(all, l)
	}
	return all
}

// List lists the volumes of all projects.
func (v Volumes) List() (all []runtime.Files) {
	for _, path := range below(filepath.Join(v.Dir, "volumes")) {
		maker, _ := os.ReadFile(filepath.Join(path, volumeMaker)) // empty where its making was cut off
		all = append(all, runtime.Files{Path: path, Project: filepath.Base(filepath.Dir(path)), Service: string(maker)})
	}
	return all
}

// below is what is in the directories of a directory.
func below(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir), "*", "*"))
	return found
}
