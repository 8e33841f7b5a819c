package outer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
)

// Volumes are the named volumes below a state directory. One is a directory with
// the name of the service that made it beside it. All services of the project may
// use it.
type Volumes struct{ Dir string }

func (v Volumes) dir(project, name string) string {
	return filepath.Join(v.Dir, "volumes", project, name)
}

// volumeMaker is the file in a volume's directory with the name of the service that
// made it.
const volumeMaker = "service"

const volumeFiles = "files"

// Make makes a volume that is not there yet, and returns where its files
// are.
func (v Volumes) Make(spec runtime.Spec, name string) (string, error) {
	dir := v.dir(spec.Project.ID, name)
	files := filepath.Join(dir, volumeFiles)
	if _, err := os.Stat(files); err == nil {
		return files, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", Unwritten(err)
	}
	if err := os.WriteFile(filepath.Join(dir, volumeMaker), []byte(spec.Service), 0o600); err != nil {
		return "", Unwritten(err)
	}
	if err := os.Mkdir(files, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", Unwritten(err)
	}
	return files, nil
}

// Remove deletes the named volumes of a project, by its id, that a
// service made; those that do not exist are no error.
func (v Volumes) Remove(project, service string, names ...string) error {
	var problems []error
	for _, name := range names {
		dir := v.dir(project, name)
		maker, err := os.ReadFile(filepath.Join(dir, volumeMaker))
		if errors.Is(err, fs.ErrNotExist) || err == nil && string(maker) != service {
			continue
		}
		problems = append(problems, err, pid1.Remove(dir))
	}
	return errors.Join(problems...)
}

// Has reports whether a project, by its id, has a named volume.
func (v Volumes) Has(project, name string) (bool, error) {
	_, err := os.Stat(filepath.Join(v.dir(project, name), volumeFiles))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
