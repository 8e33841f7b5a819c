package state

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// claim takes a name that is not in the file system, so that a daemon whose
// files were removed still has it: an address that nobody listens at, as long as
// the process lives. taken says that somebody has it, who may be anybody; holder
// then tells who serves dir.
func claim(dir string) (name *os.File, taken bool) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, true
	}
	address := fmt.Sprintf("@locald-%d-%s", os.Getuid(), digest(dir))
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: address}); err != nil {
		_ = syscall.Close(fd)
		return nil, true
	}
	return os.NewFile(uintptr(fd), address), false
}

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
// and what a process has open one for each descriptor.
func serves(proc string) bool {
	line, err := os.ReadFile(proc + "/cmdline")
	return err == nil && bytes.Contains(line, []byte("\x00server\x00")) && bytes.Contains(line, []byte("\x00start\x00"))
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
