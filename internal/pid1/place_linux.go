package pid1

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// root is the container's root directory, while it is not yet the root. Every
// name in it is resolved here, because an image may have links that lead out of
// it.
type root struct{ fd int }

// missing says what is made where a name leads to nothing.
type missing int

const (
	nothing missing = iota
	directory
	file
)

// mostLinks is where the kernel gives up too.
const mostLinks = 40

// open returns a descriptor of what a name stands for in the container.
func (r root) open(name string, made missing) (int, error) {
	first, err := unix.Openat(r.fd, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	w := walk{way: []int{first}, todo: parts(name), made: made}
	for len(w.todo) > 0 {
		if err := w.step(); err != nil {
			w.back(0)
			return -1, err
		}
	}
	last := len(w.way) - 1
	fd := w.way[last]
	w.way = w.way[:last]
	w.back(0)
	return fd, nil
}

func parts(name string) []string {
	return strings.FieldsFunc(name, func(c rune) bool { return c == '/' })
}

// walk goes down from the root, one directory at a time and through no link.
type walk struct {
	way   []int // the directories from the root on, open
	todo  []string
	made  missing
	links int
}

// back closes what is further than the first n directories.
func (w *walk) back(n int) {
	for _, fd := range w.way[n:] {
		_ = unix.Close(fd)
	}
	w.way = w.way[:n]
}

func (w *walk) step() error {
	name := w.todo[0]
	w.todo = w.todo[1:]
	switch name {
	case ".":
		return nil
	case "..":
		w.back(max(1, len(w.way)-1))
		return nil
	}
	fd, err := w.openNext(w.way[len(w.way)-1], name)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		defer unix.Close(fd)
		return w.follow(fd)
	}
	w.way = append(w.way, fd)
	return nil
}

func (w *walk) openNext(dir int, name string) (int, error) {
	const how = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, how, 0)
	if !errors.Is(err, unix.ENOENT) || w.made == nothing {
		return fd, err
	}
	if w.made == directory || len(w.todo) > 0 {
		err = unix.Mkdirat(dir, name, 0o755)
	} else if fd, err = unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644); err == nil {
		err = unix.Close(fd)
	}
	if err != nil {
		return -1, err
	}
	return unix.Openat(dir, name, how, 0)
}

// follow puts a link's target before what is still to do.
func (w *walk) follow(fd int) error {
	if w.links++; w.links > mostLinks {
		return unix.ELOOP
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", target)
	if err != nil {
		return err
	}
	if n > 0 && target[0] == '/' {
		w.back(1)
	}
	w.todo = append(parts(string(target[:n])), w.todo...)
	return nil
}

// at is a path of an open descriptor, for system calls that want one.
func at(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
