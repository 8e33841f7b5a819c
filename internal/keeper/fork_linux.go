package keeper

import (
	"errors"
	"os"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/fork"
)

type unixProcAttr = syscall.ProcAttr

// adopting are the threads of a subreaper whose children the kernel can make of
// what it did not start, when these threads have forked: what loses its parent
// goes to the first thread, and what a child clones as its own sibling (CLONE_PARENT)
// to the thread that forked the child. It passes the children of a thread that
// ends to the first one.
func adopting(subreaper int, forked ...int) (threads []int) {
	threads = append(threads, subreaper)
	for _, thread := range forked {
		if thread != subreaper {
			threads = append(threads, thread)
		}
	}
	return threads
}

// forkExec starts a program with an empty signal mask. The descriptors are the
// child's 0, 1 and 2, and it has no others.
func (h *host) forkExec(r *run, path string, argv []string, attr *unixProcAttr) (int, error) {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	r.thread = unix.Gettid()
	if attr.Sys.Cloneflags == 0 && h.starter != nil {
		p := &fork.Program{Path: path, Argv: argv, Env: attr.Env, Dir: attr.Dir}
		for _, fd := range attr.Files {
			p.Files = append(p.Files, int(fd))
		}
		if attr.Sys.UseCgroupFD {
			p.Group = attr.Sys.CgroupFD
		}
		pid, err := h.starter.Start(p)
		if !errors.Is(err, unix.ENOSYS) {
			return pid, err
		}
		h.starter = nil
	}
	// The child gets the mask of the thread that forks, which may be what locald
	// itself was started with.
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return 0, err
	}
	return syscall.ForkExec(path, argv, attr)
}

// nobody is whom a process in a user namespace of its own sees itself as.
const nobody = 65534

func asNobody(attr *unix.SysProcAttr) {
	attr.Cloneflags = unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}}
}

// ticks is the time since boot in the unit of process.start.
func ticks() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	const perSecond = 100 // USER_HZ, the same on every architecture that Go runs on
	return uint64(ts.Sec)*perSecond + uint64(ts.Nsec)/(1e9/perSecond)
}
