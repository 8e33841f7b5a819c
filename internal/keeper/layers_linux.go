package keeper

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layers says which of them this machine gives.
func Layers() []Layer {
	return []Layer{subreaping(), marking(), handles()}
}

func subreaping() Layer {
	l := Layer{Name: "subreaper", Detail: "what a service leaves behind becomes the keeper's child, and ECHILD proves that nothing is left"}
	var set int32
	if err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&set)), 0, 0, 0); err != nil {
		l.Detail = fmt.Sprintf("not available (%v): daemonised processes are found by their marks alone", err)
		return l
	}
	l.Here = true
	return l
}

func marking() Layer {
	l := Layer{Name: "rlimit mark", Detail: "processes that clear their environment are found after a crash of daemon and keeper"}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_LOCKS, &limit); err != nil || limit.Max < 2<<depthShift {
		l.Detail = "RLIMIT_LOCKS is lowered already: after a crash of daemon and keeper, processes are found by their environment alone"
		return l
	}
	l.Here = true
	return l
}

func handles() Layer {
	l := Layer{Name: "pidfd", Detail: "no signal can reach a process that took over a number"}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		l.Detail = fmt.Sprintf("not available (%v): what is not the keeper's own child cannot be signalled safely", err)
		return l
	}
	_ = unix.Close(fd)
	l.Here = true
	return l
}
