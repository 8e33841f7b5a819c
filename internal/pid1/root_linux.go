package pid1

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// quiet are the flags of what has neither programs nor devices in it.
const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// devices are the host's nodes that a container has. They are bound: making
// nodes is forbidden in a user namespace.
var devices = []string{"full", "null", "random", "tty", "urandom", "zero"}

// masked is what Docker hides, and shown what it makes read-only. Not every
// kernel has all of it.
var (
	masked = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	shown = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// makeRoot mounts everything and makes it the root of this process, when before
// has returned: whatever that waits for still sees the host's files.
func (s *Spec) makeRoot(rootless bool, before func() error) error {
	// What is mounted here is not to be seen on the host. The other way round it
	// may be: what the host unmounts is not kept busy by us.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return forbidden("mount namespace", err)
	}
	r, err := s.mountOverlay()
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return r.fillAll(s) },
		func() error { return r.kernel(s.HostNetwork, rootless) },
		func() error { return r.devices(s.has(tty, rootless)) },
		func() error { return r.identity(s) },
		func() error { return r.mounts(s) },
		func() error { return r.mask() },
		func() error { return r.workdir(s.Workdir) },
		before,
		func() error { return r.enter(s.ReadOnly) },
		func() error { return os.NewSyscallError("sethostname", unix.Sethostname([]byte(s.hostname()))) },
	} {
		if err := step(); err != nil {
			return asError("root of the container", err)
		}
	}
	return nil
}

// mountOverlay mounts the layers, with what is written above them. Overlay is
// given descriptors: all its options together are one page, of which the paths
// of thirty layers would be too much, and paths with commas and colons would
// have to be quoted.
func (s *Spec) mountOverlay() (root, error) {
	var open []int
	defer func() {
		for _, fd := range open {
			_ = unix.Close(fd)
		}
	}()
	var names []string
	for _, dir := range append(slices.Clone(s.layers()), s.upper(), s.work()) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return root{}, fail(MountFailed, "layer "+dir, err)
		}
		open = append(open, fd)
		names = append(names, strconv.Itoa(fd))
	}
	n := len(names) - 2
	// Volatile: nobody has what is written here after a crash, so nothing needs to
	// be on the disk. Without it the end of a container writes all that the host's
	// file system still has to write.
	options := fmt.Sprintf("volatile,lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(names[:n], ":"), names[n], names[n+1])
	if s.UserXattr {
		options += ",userxattr"
	}
	if err := s.stage(); err != nil {
		return root{}, err
	}
	if err := unix.Chdir("/proc/self/fd"); err != nil {
		return root{}, fail(MountFailed, "directory /proc/self/fd", err)
	}
	if err := unix.Mount("overlay", s.staged("root"), "overlay", 0, options); err != nil {
		return root{}, overlayRefused(s.Dir, err)
	}
	fd, err := unix.Open(s.staged("root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return root{}, fail(MountFailed, "root "+s.staged("root"), err)
	}
	return root{fd}, nil
}

// stage mounts a directory in memory, in which there is a place for the root
// and what says who the container is. Nobody else sees it, and it costs the disk
// nothing. It is over the overlay's own directory, which nobody needs to see.
func (s *Spec) stage() error {
	if err := unix.Mount("tmpfs", s.work(), "tmpfs", quiet, "mode=755"); err != nil {
		return forbidden("mount in "+s.Dir, err)
	}
	return errors.Join(os.Mkdir(s.staged("root"), 0o755), s.identify(s.work()))
}

// identify writes the files that say who and where the container is.
func (s *Spec) identify(dir string) error {
	resolv := s.Resolv
	if resolv == "" {
		// A host without one resolves nothing either.
		text, _ := os.ReadFile("/etc/resolv.conf")
		resolv = string(text)
	}
	var problems []error
	for i, text := range []string{s.hosts(), s.hostname() + "\n", resolv} {
		problems = append(problems, os.WriteFile(filepath.Join(dir, identities[i]), []byte(text), 0o644))
	}
	return errors.Join(problems...)
}

func (s *Spec) upper() string             { return filepath.Join(s.Dir, "upper") }
func (s *Spec) work() string              { return filepath.Join(s.Dir, "work") }
func (s *Spec) staged(name string) string { return filepath.Join(s.work(), name) }

// layers are what an overlay takes, which wants one at least.
func (s *Spec) layers() []string {
	if len(s.Layers) == 0 {
		return []string{filepath.Join(s.Dir, "none")}
	}
	return s.Layers
}

// mount mounts a file system at a directory of the container.
func (r root) mount(kind, target string, flags uintptr, options string) error {
	fd, err := r.open(target, directory)
	if err != nil {
		return fail(MountFailed, "mount at "+target, err)
	}
	defer unix.Close(fd)
	if err := unix.Mount(kind, at(fd), kind, flags, options); err != nil {
		return fail(MountFailed, fmt.Sprintf("mount of %s at %s", kind, target), err)
	}
	return nil
}

// bind shows source, and what is mounted below it, at what fd is open on.
func bind(source string, fd int, readOnly bool) error {
	return clone(unix.AT_FDCWD, source, 0, fd, readOnly)
}

func clone(dir int, source string, flags uint, fd int, readOnly bool) error {
	tree, err := unix.OpenTree(dir, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|flags)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return err
		}
	}
	return unix.MoveMount(tree, "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// kernel mounts what the kernel shows of itself.
func (r root) kernel(hostNetwork, rootless bool) error {
	if err := r.mount("proc", "/proc", quiet, ""); err != nil {
		return procRefused(err)
	}
	err := r.mount("sysfs", "/sys", quiet|unix.MS_RDONLY, "")
	if err != nil && hostNetwork && rootless {
		// It shows the network, which is not ours.
		return r.show(Mount{Source: "/sys", Target: "/sys", ReadOnly: true})
	}
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		// Programs read their limits there, and do without where they cannot.
		r.groups()
	}
	return nil
}

// groups shows the container's own control group. It is done by a thread that
// sees no other, and which ends here, as others may not have it.
func (r root) groups() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		goruntime.LockOSThread()
		if aloneWithGroups() == nil {
			_ = r.mount("cgroup2", "/sys/fs/cgroup", quiet|unix.MS_RDONLY, "")
		}
	}()
	<-done
}

// tty is the group that terminals belong to, everywhere.
const tty = 5

// has reports whether the container has a group.
func (s *Spec) has(group uint32, rootless bool) bool {
	switch {
	case !rootless:
		return true
	case s.Range != nil:
		return hasID(s.Range.GIDs, group)
	}
	return s.MapGID == group
}

// devices makes /dev.
func (r root) devices(grouped bool) error {
	if err := r.mount("tmpfs", "/dev", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k"); err != nil {
		return err
	}
	for _, name := range devices {
		if err := r.show(Mount{Source: "/dev/" + name, Target: "/dev/" + name}); err != nil {
			return err
		}
	}
	terminals := "newinstance,ptmxmode=0666,mode=0620"
	if grouped {
		terminals += ",gid=" + strconv.Itoa(tty)
	}
	if err := errors.Join(
		r.mount("devpts", "/dev/pts", unix.MS_NOSUID|unix.MS_NOEXEC, terminals),
		r.mount("tmpfs", "/dev/shm", quiet, "mode=1777,size=65536k"),
		r.mount("mqueue", "/dev/mqueue", quiet, ""),
	); err != nil {
		return err
	}
	dev, err := r.open("/dev", nothing)
	if err != nil {
		return fail(MountFailed, "directory /dev", err)
	}
	defer unix.Close(dev)
	for name, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
		"core": "/proc/kcore", "ptmx": "pts/ptmx",
	} {
		if err := unix.Symlinkat(to, dev, name); err != nil {
			return fail(MountFailed, "link /dev/"+name, err)
		}
	}
	return nil
}

// identity shows those files.
func (r root) identity(s *Spec) error {
	for _, name := range identities {
		if err := r.show(Mount{Source: s.staged(name), Target: "/etc/" + name}); err != nil {
			return err
		}
	}
	return nil
}

// show binds something of the host.
func (r root) show(m Mount) error {
	what := fmt.Sprintf("mount of %s at %s", m.Source, m.Target)
	var st unix.Stat_t
	if err := unix.Stat(m.Source, &st); err != nil {
		e := fail(MountFailed, what, err)
		if errors.Is(err, unix.ENOENT) {
			e.Why, e.Hint = m.Source+" does not exist", "mkdir -p "+m.Source
		}
		return e
	}
	made := file
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		made = directory
	}
	fd, err := r.open(m.Target, made)
	if err != nil {
		return fail(MountFailed, what, err)
	}
	defer unix.Close(fd)
	var there unix.Stat_t
	if err := unix.Fstat(fd, &there); err != nil {
		return fail(MountFailed, what, err)
	}
	if isDir := there.Mode&unix.S_IFMT == unix.S_IFDIR; isDir != (made == directory) {
		return &Error{Kind: MountFailed, What: what, Why: "one of them is a directory, the other is a file"}
	}
	if err := bind(m.Source, fd, m.ReadOnly); err != nil {
		return fail(MountFailed, what, err)
	}
	return nil
}

// mounts mounts what the Spec wants, outer directories first.
func (r root) mounts(s *Spec) error {
	type wanted struct {
		target string
		mount  func() error
	}
	var all []wanted
	for _, m := range s.Mounts {
		all = append(all, wanted{m.Target, func() error { return r.show(m) }})
	}
	for _, t := range s.Tmpfs {
		target, options, _ := strings.Cut(t, ":")
		all = append(all, wanted{target, func() error {
			flags, rest := tmpfsOptions(options, r.modeOf(target))
			return r.mount("tmpfs", target, flags, rest)
		}})
	}
	depth := func(w wanted) int { return len(parts(path.Clean(w.target))) }
	slices.SortStableFunc(all, func(a, b wanted) int { return depth(a) - depth(b) })
	for _, w := range all {
		if err := w.mount(); err != nil {
			return err
		}
	}
	return nil
}

var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "noexec": unix.MS_NOEXEC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "sync": unix.MS_SYNCHRONOUS,
}

// modeOf is the mode of a directory that is there, or what Docker gives to a
// tmpfs where none is.
func (r root) modeOf(name string) uint32 {
	var st unix.Stat_t
	fd, err := r.open(name, nothing)
	if err != nil {
		return 0o1777
	}
	defer unix.Close(fd)
	if unix.Fstat(fd, &st) != nil {
		return 0o1777
	}
	return st.Mode & 0o7777
}

// tmpfsOptions divides options into flags and what tmpfs itself understands.
// They begin with Docker's, which others undo.
func tmpfsOptions(text string, mode uint32) (flags uintptr, rest string) {
	undo := map[string]string{"rw": "ro", "exec": "noexec", "suid": "nosuid", "dev": "nodev", "atime": "noatime", "async": "sync"}
	flags = quiet
	data := []string{fmt.Sprintf("mode=%o", mode)}
	for option := range strings.SplitSeq(text, ",") {
		if flag, ok := mountFlags[option]; ok {
			flags |= flag
		} else if flag, ok := mountFlags[undo[option]]; ok {
			flags &^= flag
		} else if option != "" {
			data = append(data, option)
		}
	}
	return flags, strings.Join(data, ",")
}

// mask hides and protects what is the whole machine's.
func (r root) mask() error {
	for _, name := range masked {
		if err := r.over(name, func(fd int, dir bool) error {
			if dir {
				return unix.Mount("tmpfs", at(fd), "tmpfs", quiet|unix.MS_RDONLY, "size=0,mode=755")
			}
			return bind("/dev/null", fd, false)
		}); err != nil {
			return err
		}
	}
	for _, name := range shown {
		if err := r.over(name, func(fd int, _ bool) error { return clone(fd, "", unix.AT_EMPTY_PATH, fd, true) }); err != nil {
			return err
		}
	}
	return nil
}

// over mounts something over what is there.
func (r root) over(name string, mount func(fd int, dir bool) error) error {
	fd, err := r.open(name, nothing)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fail(MountFailed, "mount over "+name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil {
		err = mount(fd, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	}
	if err != nil {
		return fail(MountFailed, "mount over "+name, err)
	}
	return nil
}

// workdir makes the directory in which the main program begins.
func (r root) workdir(name string) error {
	fd, err := r.open(name, directory)
	if err != nil {
		return fail(WorkdirFailed, "working directory "+name, err)
	}
	return unix.Close(fd)
}

// enter makes it the root of this process, and lets go of the host's.
func (r root) enter(readOnly bool) error {
	defer unix.Close(r.fd)
	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(r.fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fail(MountFailed, "read-only root", err)
		}
	}
	if err := unix.Fchdir(r.fd); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// The old root is mounted over the new one, and is what "." then means.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fail(MountFailed, "pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fail(MountFailed, "unmount of the host's root", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}
