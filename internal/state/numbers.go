package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// numbers is the file with the number that the last run of each service was
// given. A line keeps its length and is written in place: a disk that has become
// full since the first run does not matter.
type numbers struct {
	path string

	mu  sync.Mutex
	at  map[string]int64 // where a service has its line
	end int64            // of the lines
}

// A line is a number of so many digits and the service's name, filled up with
// spaces to a multiple of unit. So no number is in two pages, and a kill leaves
// the old one or the new one.
const (
	digits = 19
	unit   = 64
)

// give writes down that a number is given.
func (n *numbers) give(service string, run int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	fd, err := n.open()
	if err != nil {
		return unwritten(filepath.Dir(n.path), err)
	}
	at, there := n.at[service]
	if !there {
		at = n.end
	}
	line := fmt.Appendf(nil, "%0*d %s", digits, run, service)
	line = append(line, bytes.Repeat([]byte{' '}, unit-1-len(line)%unit)...)
	line = append(line, '\n')
	written, err := syscall.Pwrite(fd, line, at)
	if err == nil && written < len(line) {
		err = io.ErrShortWrite
	}
	if err = errors.Join(err, syscall.Close(fd)); err != nil {
		return unwritten(filepath.Dir(n.path), fmt.Errorf("write %s: %w", n.path, err))
	}
	if !there {
		n.at[service] = at
		n.end += int64(len(line))
	}
	return nil
}

// open opens the file, or makes it when there is none. Each start of a service
// waits for it: package os would ask epoll about it as well.
func (n *numbers) open() (fd int, err error) {
	fd, err = openNumbers(n.path, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return fd, err
	}
	n.at, n.end = map[string]int64{}, 0
	fd, err = openNumbers(n.path, syscall.O_CREAT)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(n.path), 0o700); err == nil {
			fd, err = openNumbers(n.path, syscall.O_CREAT)
		}
	}
	return fd, err
}

func openNumbers(path string, create int) (fd int, err error) {
	fd, err = syscall.Open(path, syscall.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC|create, 0o600)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// read is the number that each service was given last. A line that cannot be
// read counts for nothing, and then the history has the number.
func (n *numbers) read() (given map[string]int, err error) {
	given, n.at = map[string]int{}, map[string]int64{}
	content, err := content(n.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return given, nil
	case errors.Is(err, fs.ErrPermission):
		return given, err
	case err != nil:
		damaged := &Damaged{Path: n.path, Err: err}
		damaged.Aside, err = putAside(n.path, time.Now())
		return given, errors.Join(damaged, err)
	}
	n.end = int64(len(content)+unit-1) / unit * unit
	for at := 0; at < len(content); {
		line, _, ended := strings.Cut(string(content[at:min(at+maxLine, len(content))]), "\n")
		number, name, _ := strings.Cut(line, " ")
		name = strings.TrimRight(name, " ")
		run, err := strconv.Atoi(number)
		if !ended || err != nil || len(number) != digits || name == "" || (len(line)+1)%unit != 0 {
			at += unit
			continue
		}
		if run > given[name] {
			given[name], n.at[name] = run, int64(at)
		}
		at += len(line) + 1
	}
	return given, nil
}

// maxLine is far above what a line comes to: a name is also that of a directory.
const maxLine = 8 * unit
