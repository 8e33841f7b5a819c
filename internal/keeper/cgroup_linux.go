package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// group is where a control group is in the file system.
type group struct {
	dir string
	top string // of what is mounted
}

// groupOf returns the group of this process in a hierarchy of version 1, by the
// name of its controller, or in that of version 2, which has none.
func groupOf(controller string) (g group, ok bool) {
	return findGroup(controller, readAll("/proc/self/cgroup"), readAll("/proc/self/mountinfo"))
}

func findGroup(controller string, memberships, mounts []byte) (g group, ok bool) {
	path, ok := membership(controller, memberships)
	if !ok {
		return group{}, false
	}
	for line := range bytes.Lines(mounts) {
		before, after, found := strings.Cut(strings.TrimSuffix(string(line), "\n"), " - ")
		where, how := strings.Fields(before), strings.Fields(after)
		if !found || len(where) < 5 || len(how) < 3 {
			continue
		}
		if controller == "" && how[0] != "cgroup2" {
			continue
		}
		if controller != "" && (how[0] != "cgroup" || !slices.Contains(strings.Split(how[2], ","), controller)) {
			continue
		}
		root, top := unescape(where[3]), unescape(where[4])
		below, err := filepath.Rel(root, path)
		if err != nil || below == ".." || strings.HasPrefix(below, "../") {
			continue // another part of the hierarchy is mounted here
		}
		return group{dir: filepath.Join(top, below), top: top}, true
	}
	return group{}, false
}

// membership returns the path of a group below the root of its hierarchy.
func membership(controller string, memberships []byte) (path string, ok bool) {
	for line := range bytes.Lines(memberships) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		if controller == "" && fields[0] == "0" && fields[1] == "" || controller != "" && slices.Contains(strings.Split(fields[1], ","), controller) {
			// Outside of what this process may see the path has dots in it.
			return fields[2], strings.HasPrefix(fields[2], "/") && !strings.HasPrefix(fields[2], "/..")
		}
	}
	return "", false
}

// unescape undoes what the kernel does to spaces in mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// groups is the control group of a keeper, in which each of its runs has one
// of its own.
type groups struct {
	dir   string
	fd    int
	inode uint64
}

// makeGroups makes the keeper's group below its own one. It returns nil where
// that cannot be had: then there are the other layers.
func makeGroups(owner, name string) *groups {
	own, ok := delegatedGroup()
	if !ok {
		return nil
	}
	dir := filepath.Join(own.dir, groupOfKeeper(owner, name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return nil
	}
	g := &groups{dir: dir, fd: fd, inode: st.Ino}
	if most := roomBelow(unix.RLIM_INFINITY, taskLimits()); most > 0 {
		// It is there where the controller was handed down.
		_ = writeExisting(filepath.Join(dir, "pids.max"), strconv.FormatUint(most, 10))
	}
	return g
}

// groupPrefix is how the names of locald's groups begin.
const groupPrefix = "locald-"

// groupOfKeeper is the name of a keeper's own groups.
func groupOfKeeper(owner, name string) string {
	return fmt.Sprintf("%s%06x-%s", groupPrefix, instanceOf(owner), name)
}

func (g *groups) close() {
	if g == nil {
		return
	}
	_ = unix.Close(g.fd)
	removeGroup(g.dir)
}

func groupName(number uint64) string { return strconv.FormatUint(number, 16) }

// make makes the group of a run and returns a descriptor of where in it the main
// process is to be.
func (g *groups) make(r *run) (made *runGroup, fd int, err error) {
	const how = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	name := groupName(r.mark.Number)
	made = &runGroup{dir: filepath.Join(g.dir, name)}
	if r.bounds != nil && r.bounds.program != "" { // it is there already, and divided
		fd, err = unix.Open(r.bounds.program, how, 0)
		return made, fd, err
	}
	if err := unix.Mkdirat(g.fd, name, 0o755); err != nil {
		return nil, -1, err
	}
	fd, err = unix.Openat(g.fd, name, how, 0)
	if err != nil {
		_ = unix.Unlinkat(g.fd, name, unix.AT_REMOVEDIR)
		return nil, -1, err
	}
	return made, fd, nil
}

// runGroup is the control group of one run. A nil one is that of a run without:
// it holds nothing.
type runGroup struct{ dir string }

// kill ends everything in the group at once, in which nothing can fork.
func (g *runGroup) kill() {
	if g == nil {
		return
	}
	if writeExisting(filepath.Join(g.dir, "cgroup.kill"), "1") == nil {
		return
	}
	// Before Linux 5.14: what is frozen cannot fork, and can be killed one by one.
	_ = writeExisting(filepath.Join(g.dir, "cgroup.freeze"), "1")
}

// remove reports whether the group is gone. The kernel removes it only when no
// process is in it.
func (g *runGroup) remove() bool { return g == nil || removeGroup(g.dir) }

func (g *runGroup) pids() []int {
	if g == nil {
		return nil
	}
	return groupProcesses(g.dir)
}

func (g *runGroup) populated() bool { return g != nil && populated(g.dir) }

// removeGroup removes a group and what a service made below it.
func removeGroup(dir string) bool {
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return true
		}
		removed := false
		for _, below := range groupsBelow(dir) {
			removed = removeGroup(below) || removed
		}
		if !removed {
			return false
		}
	}
}

func groupsBelow(dir string) (below []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			below = append(below, filepath.Join(dir, entry.Name()))
		}
	}
	return below
}

// populated reports whether processes are in a group or below it.
func populated(dir string) bool {
	var buf [256]byte
	return bytes.Contains(readFile(filepath.Join(dir, "cgroup.events"), buf[:]), []byte("populated 1"))
}

// groupProcesses returns the processes in a group and below it.
func groupProcesses(dir string) (pids []int) {
	var room [1024]byte
	b, _ := readWhole(filepath.Join(dir, "cgroup.procs"), room[:])
	for field := range bytes.FieldsSeq(b) {
		if pid, err := strconv.Atoi(string(field)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	for _, below := range groupsBelow(dir) {
		pids = append(pids, groupProcesses(below)...)
	}
	return pids
}

// writeExisting writes into a file of the kernel's, which it must not make.
func writeExisting(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for {
		_, err = unix.Write(fd, []byte(text))
		switch {
		case err == nil:
			return nil
		case err != unix.EINTR:
			return &os.PathError{Op: "write", Path: path, Err: err}
		}
	}
}

// here reports whether the group that was recorded in this boot is there. The
// inodes of groups are not given out again.
func (g *groupRecord) here() bool {
	var fs unix.Statfs_t
	var st unix.Stat_t
	return unix.Statfs(g.Dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC &&
		unix.Lstat(g.Dir, &st) == nil && st.Ino == g.Inode
}

// gone reports whether the group is not there, and removes it if it is empty.
func (g *groupRecord) gone() bool { return !g.here() || removeGroup(g.Dir) }

// runs returns the groups of the runs, by number.
func (g *groupRecord) runs() map[uint64]*runGroup {
	runs := map[uint64]*runGroup{}
	if !g.here() {
		return runs
	}
	for _, dir := range groupsBelow(g.Dir) {
		if number, err := strconv.ParseUint(filepath.Base(dir), 16, 64); err == nil {
			runs[number] = &runGroup{dir: dir}
		}
	}
	return runs
}
