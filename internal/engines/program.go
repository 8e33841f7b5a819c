package engines

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/runtime"
)

// The commands of the programs, and of a locald that was built without them.
const (
	Command      = "engines"
	MakerCommand = "container"
)

// program is argv of the process, its files kept below a state directory.
func program(dir string) ([]string, error) {
	return argv(dir, "engines", carriedEngines, carriedEnginesSum, Command)
}

// maker is argv of what makes builtin containers, without its MakerCommand.
func maker(dir string) ([]string, error) { return argv(dir, "maker", carriedMaker, carriedMakerSum) }

// argv is that of a carried program or, where it is not carried, of this one.
func argv(dir, name, carried, sum string, command ...string) ([]string, error) {
	if carried == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find locald's own file: %w", err)
		}
		return append([]string{self}, command...), nil
	}
	path := filepath.Join(dir, "bin", name+"-"+strings.TrimSpace(sum))
	program := append([]string{path}, command...)
	if unix.Access(path, unix.X_OK) == nil {
		return program, nil
	}
	if err := unpack(path, name, carried); err != nil {
		f := &runtime.Fault{Code: "internal", Err: fmt.Errorf("unpack what speaks to engines: %w", err), Kind: runtime.ErrUnavailable}
		switch {
		case errors.Is(err, unix.ENOSPC):
			f.Code, f.Hint = "disk_full", "df -h "+dir
		case errors.Is(err, fs.ErrPermission):
			f.Code, f.Hint = "permission_denied", "mount | grep noexec; XDG_DATA_HOME moves the state"
		}
		return nil, f
	}
	return program, nil
}

// unpack writes a program whole or not at all, and removes those of other
// versions: who executes one keeps it.
func unpack(path, name, carried string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	others, err := filepath.Glob(filepath.Join(filepath.Dir(path), name+"-*"))
	if err != nil {
		return err
	}
	for _, other := range others {
		_ = os.Remove(other) // the next version tries again
	}
	f, err := os.CreateTemp(filepath.Dir(path), name+"-*.new")
	if err != nil {
		return err
	}
	_, err = f.WriteString(carried)
	forget(carried)
	err = errors.Join(err, f.Chmod(0o500), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return unix.Access(path, unix.X_OK) // not on a file system without programs
}

// forget gives back the memory of a carried program, which comes from locald's own
// file and can be read there again.
func forget(carried string) {
	page := uintptr(os.Getpagesize())
	start := uintptr(unsafe.Pointer(unsafe.StringData(carried)))
	skip, length := (page-start%page)%page, uintptr(len(carried))
	if length < skip+page {
		return
	}
	whole := unsafe.Slice(unsafe.StringData(carried[skip:]), (length-skip)/page*page)
	_ = unix.Madvise(whole, unix.MADV_DONTNEED) // it only saves memory
}
