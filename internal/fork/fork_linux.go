//go:build linux && (amd64 || arm64)

package fork

import (
	goruntime "runtime"
	"syscall"
	"unsafe"

	"github.com/locald/locald/internal/fork/started"
)

// MaxFiles is how many descriptors a program can be given.
const MaxFiles = 8

// Starter starts programs, one at a time.
type Starter struct {
	null  int           // what a slot has when it has nothing
	slots [MaxFiles]int // low descriptors, which a child finds its files at
	end   int           // above all of them
}

// Program is what to execute.
type Program struct {
	Path      string
	Argv, Env []string
	Dir       string
	Files     []int // become 0, 1, 2, …; at most MaxFiles
	Group     int   // a descriptor of the control group to be born in; 0 is the parent's
}

// New keeps descriptors for what programs are given. It is called early, as they
// are to be low: all below the highest are copied into each child.
func New() (*Starter, error) {
	null, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &Starter{null: null}
	for i := range s.slots {
		if s.slots[i], err = duplicate(null); err != nil {
			return nil, err
		}
		s.end = max(s.end, s.slots[i]+1)
	}
	return s, nil
}

// duplicate makes a second descriptor that is none of the standard ones.
func duplicate(fd int) (int, error) {
	n, _, e := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 3)
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}

// cloneArgs is what clone3(2) takes.
type cloneArgs struct {
	flags      uint64
	_          [3]uint64 // pidfd, child_tid, parent_tid
	exitSignal uint64
	_          [5]uint64 // stack, stack_size, tls, set_tid, set_tid_size
	cgroup     uint64
}

// call is a system call that the child makes.
type call struct {
	number uintptr
	args   [5]uintptr
}

// verdict is what a child leaves when one of its calls fails.
type verdict struct {
	errno, number uintptr
}

// message is what a child is told, and what it answers. It is on the heap, with
// all that it has: what the calls point to must not move, and they are numbers to
// the collector.
type message struct {
	failed    verdict
	clone     cloneArgs
	calls     []call
	path, dir *byte
	argv, env []*byte
	unblocked uint64
	files     syscall.Rlimit
}

func (m *message) add(number uintptr, args ...uintptr) {
	c := call{number: number}
	copy(c.args[:], args)
	m.calls = append(m.calls, c)
}

const (
	cloneVM        = 0x100
	cloneFiles     = 0x400
	cloneVfork     = 0x4000
	cloneClearHand = 1 << 32 // CLONE_CLEAR_SIGHAND, Linux 5.5
	cloneIntoGroup = 1 << 33 // CLONE_INTO_CGROUP, Linux 5.7

	sysClone3     = 435
	sysCloseRange = 436 // Linux 5.9
	lastFile      = 1<<32 - 1
	unshare       = 1 << 1

	setMask   = 2
	maskBytes = 8
)

// spawn makes a child, which makes the calls and does not return.
func spawn(args *cloneArgs, size uintptr, calls *call, n uintptr, failed *verdict) (pid, errno uintptr)

// Start executes a program in a session of its own, with no signal blocked, and
// none ignored that this process does not ignore. It returns when the program is
// being executed. The error is a [syscall.Errno]; ENOSYS is from a kernel, or a
// filter, that has not what is needed, and says nothing about the program.
func (s *Starter) Start(p *Program) (pid int, err error) {
	if len(p.Files) > MaxFiles {
		return 0, syscall.E2BIG
	}
	m, err := encode(p)
	if err != nil {
		return 0, err
	}
	defer s.release(len(p.Files))
	for i, fd := range p.Files {
		if err := syscall.Dup3(fd, s.slots[i], syscall.O_CLOEXEC); err != nil {
			return 0, err
		}
	}
	m.add(sysCloseRange, uintptr(s.end), lastFile, unshare)
	for i := range p.Files {
		m.add(syscall.SYS_DUP3, uintptr(s.slots[i]), uintptr(i), 0)
	}
	m.add(sysCloseRange, uintptr(len(p.Files)), lastFile, 0)
	m.add(syscall.SYS_SETSID)
	if p.Dir != "" {
		m.add(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(m.dir)))
	}
	m.add(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&m.files)), 0)
	m.add(syscall.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&m.unblocked)), 0, maskBytes)
	m.add(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(m.path)), uintptr(unsafe.Pointer(&m.argv[0])), uintptr(unsafe.Pointer(&m.env[0])))
	child, errno := m.spawn()
	switch {
	case p.Group == 0 && (errno == syscall.EINVAL || errno == syscall.EPERM):
		return 0, syscall.ENOSYS // a clone3 that does not know a flag, or a filter that does not know clone3
	case errno != 0:
		return 0, errno
	case m.failed.errno != 0:
		reap(child)
		if m.failed.number == sysCloseRange { // the same with close_range
			return 0, syscall.ENOSYS
		}
		return 0, syscall.Errno(m.failed.errno)
	}
	return child, nil
}

// encode writes down a program as the kernel takes it.
func encode(p *Program) (m *message, err error) {
	m = &message{calls: make([]call, 0, 7+MaxFiles), clone: cloneArgs{flags: cloneVM | cloneVfork | cloneFiles | cloneClearHand, exitSignal: uint64(syscall.SIGCHLD)}}
	// As the process was started, and not with what package syscall made of that:
	// some programs go through all numbers that the limit allows.
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &m.files); err != nil {
		return nil, err
	}
	if started.OpenFiles != 0 {
		m.files.Cur = min(started.OpenFiles, m.files.Max)
	}
	if p.Group != 0 {
		m.clone.flags |= cloneIntoGroup
		m.clone.cgroup = uint64(p.Group)
	}
	if m.path, err = syscall.BytePtrFromString(p.Path); err != nil {
		return nil, err
	}
	if m.dir, err = syscall.BytePtrFromString(p.Dir); err != nil {
		return nil, err
	}
	if m.argv, err = syscall.SlicePtrFromStrings(p.Argv); err != nil {
		return nil, err
	}
	m.env, err = syscall.SlicePtrFromStrings(p.Env)
	return m, err
}

// spawn has no signal come while the child is not the program yet: a handler of
// ours would run in both.
func (m *message) spawn() (pid int, errno syscall.Errno) {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	all, before := ^uint64(0), uint64(0)
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&before)), maskBytes, 0, 0)
	if e != 0 {
		return 0, e
	}
	child, code := spawn(&m.clone, unsafe.Sizeof(m.clone), &m.calls[0], uintptr(len(m.calls)), &m.failed)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&before)), 0, maskBytes, 0, 0)
	goruntime.KeepAlive(m)
	return int(child), syscall.Errno(code)
}

// release lets go of what a program was given: who reads a pipe is to see the end
// of it.
func (s *Starter) release(n int) {
	for _, slot := range s.slots[:n] {
		_ = syscall.Dup3(s.null, slot, syscall.O_CLOEXEC)
	}
}

// reap takes in the end of a child that did not become a program, unless whoever
// reaps all children has.
func reap(pid int) {
	for {
		_, err := syscall.Wait4(pid, nil, 0, nil)
		if err != syscall.EINTR {
			return
		}
	}
}
