package keeper

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Shown is what people are shown of a process.
type Shown struct {
	PID  int
	Argv []string
	UID  int
	Held string // "uninterruptible in fuse_wait", when no signal can end it; else empty
}

// Show tells what is known of a process; ok is false when it has ended.
func Show(pid int) (s Shown, ok bool) {
	p, ok := readProcess(pid)
	if !ok || p.dead() {
		return s, false
	}
	s = Shown{PID: pid}
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid), &st) == nil {
		s.UID = int(st.Uid)
	}
	if b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); err == nil {
		s.Argv = strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	}
	if p.state == 'D' {
		s.Held = survivor(pid, nil).Reason
	}
	return s, true
}

// Keepers returns the keepers of owner that are there. While one forks it has
// the number of the run that it starts; then its command line tells.
func Keepers(owner string) ([]int, error) {
	var pids []int
	err := eachProcess(func(pid int) {
		limit, ok := lockLimit(pid)
		if !ok || limit >= foreign || !keeperOf(owner, limit&^1) {
			return
		}
		p, there := Show(pid)
		forks := limit&1 == 1 && slices.Equal(p.Argv, []string{"locald", "keeper"})
		if there && (limit&1 == 0 || forks) && len(runsOf(owner, environ(pid))) == 0 {
			pids = append(pids, pid)
		}
	})
	return pids, err
}
