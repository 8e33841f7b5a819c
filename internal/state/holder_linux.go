package state

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// holder is the process of this user that holds a lock which was once that of
// dir, wherever its file is now; 0 is none. Such a file is called lock, names
// dir, and is locked.
func holder(dir string) int {
	self, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return 0
	}
	procs, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer procs.Close()
	entries, _ := procs.Readdirnames(-1) // of what is there when it is read
	for _, name := range entries {
		pid, err := strconv.Atoi(name)
		proc := "/proc/" + name
		if err != nil || pid == os.Getpid() || !serves(proc) {
			continue
		}
		if ns, err := os.Readlink(proc + "/ns/mnt"); err != nil || ns != self {
			continue // another's, or what it calls dir is somewhere else
		}
		if holds(proc, dir) {
			return pid
		}
	}
	return 0
}

// serves reports whether a process was started as a daemon is, whatever options
// are among its arguments. It is asked first because it takes one file to know,
// and what a process has open one for each descriptor. Every process is asked while
// somebody waits for the first daemon, so it takes three calls of the system, which
// are half of what package os needs.
func serves(proc string) bool {
	fd, err := syscall.Open(proc+"/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = syscall.Close(fd) }()
	var line [8 << 10]byte
	n, err := syscall.Read(fd, line[:])
	return err == nil && bytes.Contains(line[:n], []byte("\x00server\x00")) && bytes.Contains(line[:n], []byte("\x00start\x00"))
}

func holds(proc, dir string) bool {
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return false
	}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if err != nil || filepath.Base(strings.TrimSuffix(target, " (deleted)")) != "lock" {
			continue
		}
		if info, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name())); err != nil || !bytes.Contains(info, []byte("FLOCK")) {
			continue
		}
		if names(filepath.Join(proc, "fd", fd.Name()), dir) {
			return true
		}
	}
	return false
}

// names reports whether the second line of a lock's file is dir.
func names(path, dir string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 8<<10))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(text, []byte("\n"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(line) == dir
}
