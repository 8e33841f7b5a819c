package builtin

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// program is argv of what makes containers. That is cmd/maker if this program
// carries it, because it begins sooner, and otherwise nothing: this program does
// the same.
func (r *Runtime) program() []string {
	if len(r.options.Program) > 0 {
		return r.options.Program
	}
	if path := r.maker(); path != "" {
		return []string{path}
	}
	return nil
}

// maker is the carried one, as a file. Where it cannot be kept or executed once,
// it is done without from then on.
func (r *Runtime) maker() string {
	r.unpacking.Lock()
	defer r.unpacking.Unlock()
	if len(r.carried) == 0 {
		return ""
	}
	path, err := r.unpackMaker()
	if err != nil {
		r.carried = nil
		return ""
	}
	return path
}

// unpackMaker writes the maker if it is not there, and removes those of other
// versions: what they have made needs their files no more.
func (r *Runtime) unpackMaker() (string, error) {
	sum := sha256.Sum256(r.carried)
	path := filepath.Join(r.options.Dir, "bin", "maker-"+hex.EncodeToString(sum[:8]))
	if unix.Access(path, unix.X_OK) == nil {
		return path, nil
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	if err := unpackProgram(r.carried, path+".new"); err != nil {
		return "", err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return "", err
	}
	return path, unix.Access(path, unix.X_OK) // not on a file system without programs
}

func unpackProgram(packed []byte, path string) error {
	from, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o500)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
