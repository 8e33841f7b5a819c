package pid1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// statusName is the file that tells how the start of a container ended, and
// bellName a FIFO that whoever waits for it reads.
const (
	statusName = "status"
	bellName   = "bell"
)

// status is its content.
type status struct {
	Error *Error `json:"error,omitempty"` // nil when the main program was executed
}

// writeStatus writes the file whole or not at all, and once: a second container
// in the directory tells nobody in the name of the first.
func writeStatus(dir string, s status) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, statusName)
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	err = errors.Join(os.Link(name+".new", name), os.Remove(name+".new"))
	ring(dir)
	return err
}

// ring wakes whoever waits. If nobody does, there is nobody to wake.
func ring(dir string) {
	if fd, err := unix.Open(filepath.Join(dir, bellName), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.Write(fd, []byte{0})
		_ = unix.Close(fd)
	}
}

// Ready returns once the main program of the container in dir has been executed,
// or with the *Error that kept it from that. It may be called before the outer
// process has begun, and again after it has ended, by one at a time. An outer
// process that is killed before it could tell tells nothing: ctx should end with
// it.
func Ready(ctx context.Context, dir string) error {
	return awaited(ctx, dir, func() (bool, error) { return readStatus(dir) })
}

// awaited asks at each ring of the bell whether what a directory tells is there.
func awaited(ctx context.Context, dir string, told func() (bool, error)) error {
	heard, err := bell(dir)
	if err != nil {
		return err
	}
	defer heard.Close()
	stop := context.AfterFunc(ctx, func() { _ = heard.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		done, err := told()
		if done || err != nil {
			return err
		}
		if _, err := heard.Read(make([]byte, 1)); ctx.Err() != nil {
			return fmt.Errorf("container in %s: %w", dir, ctx.Err())
		} else if err != nil {
			return err
		}
	}
}

// bell opens the FIFO, and makes it if nobody has. Whoever enters the directory
// may ring.
func bell(dir string) (*os.File, error) {
	name := filepath.Join(dir, bellName)
	err := unix.Mkfifo(name, 0o622)
	if err == nil {
		err = os.Chmod(name, 0o622) // whatever the umask is
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mkfifo", Path: name, Err: err}
	}
	// Who could write himself waits also while nobody else does.
	return os.OpenFile(name, os.O_RDWR, 0)
}

// readStatus returns the error that is told, if it is told yet how the start
// ended.
func readStatus(dir string) (done bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, statusName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var s status
	if err := json.Unmarshal(text, &s); err != nil {
		return false, fmt.Errorf("status in %s: %w", dir, err)
	}
	if s.Error != nil {
		return true, s.Error
	}
	return true, nil
}
