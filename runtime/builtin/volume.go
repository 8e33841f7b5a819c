package builtin

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
)

// A named volume is a directory with the name of the service that made it
// beside it. All services of the project may use it.
func (r *Runtime) volumeDir(project, name string) string {
	return filepath.Join(r.options.Dir, "volumes", project, name)
}

const (
	volumeFiles = "files"
	volumeMaker = "service"
)

// makeVolume makes a volume that is not there yet, and returns where its files
// are.
func (r *Runtime) makeVolume(spec runtime.Spec, name string) (string, error) {
	dir := r.volumeDir(spec.Project.ID, name)
	files := filepath.Join(dir, volumeFiles)
	if _, err := os.Stat(files); err == nil {
		return files, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", unwritten(err)
	}
	if err := os.WriteFile(filepath.Join(dir, volumeMaker), []byte(spec.Service), 0o600); err != nil {
		return "", unwritten(err)
	}
	if err := os.Mkdir(files, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", unwritten(err)
	}
	return files, nil
}

// RemoveVolumes deletes the named volumes of a project, by its id, that a
// service made; those that do not exist are no error.
func (r *Runtime) RemoveVolumes(_ context.Context, project, service string, names ...string) error {
	var problems []error
	for _, name := range names {
		dir := r.volumeDir(project, name)
		maker, err := os.ReadFile(filepath.Join(dir, volumeMaker))
		if errors.Is(err, fs.ErrNotExist) || err == nil && string(maker) != service {
			continue
		}
		problems = append(problems, err, pid1.Remove(dir))
	}
	return errors.Join(problems...)
}

// HasVolume reports whether a project, by its id, has a named volume.
func (r *Runtime) HasVolume(_ context.Context, project, name string) (bool, error) {
	_, err := os.Stat(filepath.Join(r.volumeDir(project, name), volumeFiles))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
