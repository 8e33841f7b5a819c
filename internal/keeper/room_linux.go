package keeper

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// spare is how many processes and threads are left to locald when its
	// services have used up what the user may have. Without them the Go runtime
	// ends with the first thread that it cannot make.
	spare = 100

	// sharedFloor is the least limit of more than this user that is taken for
	// one of this user's: other processes of the user, elsewhere, count against
	// RLIMIT_NPROC and not against that.
	sharedFloor = 4096
)

// processRoom is the RLIMIT_NPROC of services: what the user may have, less
// what locald may need. It is 0 where they keep the keeper's own: root is held
// to none, and what is small already has nothing to spare.
func processRoom() uint64 {
	var own unix.Rlimit
	if os.Geteuid() == 0 || unix.Getrlimit(unix.RLIMIT_NPROC, &own) != nil {
		return 0
	}
	shared := []uint64{readLimit("/proc/sys/kernel/threads-max"), readLimit("/proc/sys/kernel/pid_max")}
	return roomBelow(own.Cur, append(shared, taskLimits()...))
}

func roomBelow(own uint64, shared []uint64) uint64 {
	for _, limit := range shared {
		if limit >= sharedFloor {
			own = min(own, limit)
		}
	}
	if own == unix.RLIM_INFINITY || own <= 2*spare {
		return 0
	}
	return own - spare
}

// readLimit reads a number, or nothing that limits.
func readLimit(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return unix.RLIM_INFINITY
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return unix.RLIM_INFINITY // "max"
	}
	return n
}

// taskLimits are the limits that this process's control groups have.
func taskLimits() (limits []uint64) {
	for _, kind := range []string{"", "pids"} {
		g, ok := groupOf(kind)
		for dir := g.dir; ok && len(dir) >= len(g.top); dir = filepath.Dir(dir) {
			limits = append(limits, readLimit(filepath.Join(dir, "pids.max")))
		}
	}
	return limits
}

// leaveRoom lowers the limit of a process that was just started, and of what
// that has forked meanwhile.
func leaveRoom(pid int, room uint64) {
	if room == 0 {
		return
	}
	var now unix.Rlimit
	if unix.Prlimit(pid, unix.RLIMIT_NPROC, nil, &now) != nil || now.Max <= room && now.Cur <= room {
		return // it has ended, or was forked since
	}
	lower := unix.Rlimit{Cur: min(now.Cur, room), Max: min(now.Max, room)}
	if unix.Prlimit(pid, unix.RLIMIT_NPROC, &lower, nil) != nil {
		return
	}
	children, _ := childrenOf(pid)
	for _, child := range children {
		leaveRoom(child, room)
	}
}
