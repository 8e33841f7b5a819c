package keeper

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

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

// lendRoom gives this process the limit of services until done is called, for a
// fork to inherit. While it holds, a fork fails as soon as the services have all
// that they may have.
func lendRoom(room uint64) (done func()) {
	var own unix.Rlimit
	if room == 0 || unix.Prlimit(0, unix.RLIMIT_NPROC, nil, &own) != nil || own.Cur <= room {
		return func() {}
	}
	lower := unix.Rlimit{Cur: room, Max: own.Max}
	if unix.Prlimit(0, unix.RLIMIT_NPROC, &lower, nil) != nil {
		return func() {}
	}
	return func() { _ = unix.Prlimit(0, unix.RLIMIT_NPROC, &own, nil) }
}

// leaveRoom lowers both limits of a process that was just started, and of what
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

// expendable is how much sooner than locald the kernel ends a service for want
// of memory, of a thousand.
const expendable, mostExpendable = 300, 1000

// scores deals the oom_score_adj of services, which they inherit from this
// process while it forks.
type scores struct {
	file          int // -1 where it cannot be changed
	own, services string
}

func newScores() scores {
	const path = "/proc/self/oom_score_adj"
	b, err := os.ReadFile(path)
	own, bad := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil || bad != nil || own >= mostExpendable {
		return scores{file: -1}
	}
	file, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return scores{file: -1}
	}
	return scores{file: file, own: strconv.Itoa(own), services: strconv.Itoa(min(own+expendable, mostExpendable))}
}

// lend gives this process the score of services until done is called.
func (s scores) lend() (done func()) {
	if s.file < 0 || !s.set(s.services) {
		return func() {}
	}
	// Back to what it was is allowed to everybody.
	return func() { s.set(s.own) }
}

func (s scores) set(score string) bool {
	_, err := unix.Pwrite(s.file, []byte(score), 0)
	return err == nil
}

// oomKills counts the processes that the kernel has ended for want of memory, of
// the whole machine. To read that takes as long as half a fork.
type oomKills struct {
	mu    sync.Mutex
	count uint64
	read  time.Time
}

func (o *oomKills) now() uint64 { return o.within(0) }

// lately is the count of a moment ago, which runs that begin together share.
func (o *oomKills) lately() uint64 { return o.within(100 * time.Millisecond) }

func (o *oomKills) within(age time.Duration) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); now.Sub(o.read) >= age {
		var buf [16 << 10]byte
		o.count, o.read = counter(readFile("/proc/vmstat", buf[:]), "oom_kill"), now
	}
	return o.count
}

// counter reads one of the counters that stand each behind its name in a line
// of its own.
func counter(b []byte, name string) uint64 {
	for line := range bytes.Lines(b) {
		if value, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			n, _ := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
			return n
		}
	}
	return 0
}

// memoryKill says whether the kernel has ended a run's main process for want of
// memory: "yes" when the run's group counts it, "probably" when the machine
// has counted one since the run began. "part" is for something that the main
// process had started. A run with limits ends as what it started did.
func (r *run) memoryKill(status unix.WaitStatus, kills *oomKills) string {
	killed := status.Signaled() && status.Signal() == unix.SIGKILL
	switch {
	case r.exit.Forced:
		return ""
	case r.bounds.killed() && r.exit.Code == 128+int(unix.SIGKILL):
		return "yes"
	case r.bounds.killed() && r.exit.Code != 0 && !r.asked:
		return "part"
	case !killed && (r.bounds == nil || r.exit.Code != 128+int(unix.SIGKILL)):
		return ""
	}
	if r.group != nil {
		b, err := os.ReadFile(filepath.Join(r.group.dir, "memory.events"))
		if err == nil {
			if counter(b, "oom_kill") > 0 {
				return "yes"
			}
			return ""
		}
	}
	if kills.now() > r.oom {
		return "probably"
	}
	return ""
}
