package keeper

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layers says which of them this machine gives.
func Layers() []Layer {
	return []Layer{subreaping(), marking(), handles(), recording(), grouping(), reserving(), limiting()}
}

func subreaping() Layer {
	l := Layer{Name: "subreaper", Needed: true, Detail: "what a service leaves behind becomes the keeper's child, and ECHILD proves that nothing is left"}
	var set int32
	if err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&set)), 0, 0, 0); err != nil {
		l.Detail = fmt.Sprintf("not available (%v): daemonised processes are found by their marks alone", err)
		return l
	}
	l.Here = true
	return l
}

func marking() Layer {
	l := Layer{Name: "rlimit mark", Needed: true, Detail: "processes that clear their environment are found after a crash of daemon and keeper"}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_LOCKS, &limit); err != nil || limit.Max < 2<<depthShift {
		l.Detail = "RLIMIT_LOCKS is lowered already: after a crash of daemon and keeper, processes are found by their environment alone"
		return l
	}
	l.Here = true
	return l
}

func handles() Layer {
	l := Layer{Name: "pidfd", Needed: true, Detail: "no signal can reach a process that took over a number"}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		l.Detail = fmt.Sprintf("not available (%v): what is not the keeper's own child cannot be signalled safely", err)
		return l
	}
	_ = unix.Close(fd)
	l.Here = true
	return l
}

func recording() Layer {
	l := Layer{Name: "ledger", Detail: "processes that remove their marks are found after a crash of daemon and keeper, if they were there for a moment before"}
	self := pin(os.Getpid())
	defer self.close()
	if inodeOf(self.pidfd) == 0 {
		l.Detail = "not available (pidfds have no inode before Linux 6.9): after a crash of daemon and keeper, processes that removed their marks are not found"
		return l
	}
	l.Here = true
	return l
}

func grouping() Layer {
	l := Layer{Name: "control groups", Detail: "a service is ended at once with all that it forked, and found after any crash"}
	if os.Getenv(Groups) == "off" {
		l.Detail = "not used: " + Groups + " is off; the layers above hold services without them"
		return l
	}
	g := makeGroups("doctor", fmt.Sprintf("%d-%d", os.Getpid(), ticks()))
	if g == nil {
		l.Detail = "not available (no control group of version 2 is delegated to this user): the layers above hold services without them"
		return l
	}
	g.close()
	l.Here = true
	return l
}

func reserving() Layer {
	l := Layer{Name: "process limit", Detail: "not lowered for services: a fork bomb may take every process that there can be"}
	if room := processRoom(); room > 0 {
		l.Here = true
		l.Detail = fmt.Sprintf("services may have %d processes, %d less than locald", room, spare)
	}
	return l
}
