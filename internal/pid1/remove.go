package pid1

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Whole reports whether the directory of a container that runs has all that it
// needs.
func Whole(dir string) bool {
	for _, name := range []string{"control", "upper", "work"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// Remove deletes a container's directory, of which nothing may run any more, or
// another that containers have written to. It is no error if it is not there.
// Users of a range may have left files that are not ours.
func Remove(dir string) error {
	err := remove(dir)
	if errors.Is(err, fs.ErrPermission) {
		err = removeAsRange(dir, err)
	}
	return err
}

func remove(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// Overlay's own directory has the mode 000, and programs make directories that
	// they cannot write to. All of it belongs to us.
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if d == nil || !d.IsDir() {
			return nil
		}
		if os.Chmod(name, 0o700) != nil {
			return fs.SkipDir // deleting it says why
		}
		return nil
	})
	return os.RemoveAll(dir)
}
