package keeper

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// orphans are the children of the daemon that it did not start: it is a
// subreaper too, so what a keeper that was killed had below it becomes the
// daemon's. Its own children are those of which it holds a pidfd, as os/exec
// does from their birth to their reaping.
type orphans struct {
	owner  string
	exact  bool           // os/exec holds pidfds; else marks alone tell
	before map[int]uint64 // children of this process that were there before any keeper: their start

	mu    sync.Mutex // kept while an orphan is reaped
	turns chan struct{}
}

// adoptOrphans makes this process a subreaper. What cannot be had is done
// without.
func adoptOrphans(owner string) *orphans {
	o := &orphans{owner: owner, before: map[int]uint64{}, turns: make(chan struct{})}
	held := heldProcesses(nil)
	for _, pid := range ourChildren() {
		if p, ok := readProcess(pid); ok && !held[pid] {
			o.before[pid] = p.start
		}
	}
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	return o
}

// begin learns from the keeper's process whether os/exec holds pidfds.
func (o *orphans) begin(keeper int) { o.exact = heldProcesses(nil)[keeper] }

// heldProcesses are those of which this process has a pidfd open, but for the
// sweep's own.
func heldProcesses(members map[int]*member) map[int]bool {
	held := map[int]bool{}
	own := make(map[string]bool, len(members))
	for _, m := range members {
		own[strconv.Itoa(m.pidfd)] = true
	}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return held
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if own[name] {
			continue
		}
		target, err := os.Readlink("/proc/self/fd/" + name)
		if err != nil || !strings.Contains(target, "pidfd") {
			continue
		}
		b, _ := os.ReadFile("/proc/self/fdinfo/" + name)
		_, rest, _ := bytes.Cut(b, []byte("\nPid:"))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		if pid, err := strconv.Atoi(string(bytes.TrimSpace(line))); err == nil && pid > 0 {
			held[pid] = true
		}
	}
	return held
}

// reapWhile reaps orphans until the keeper is lost: those of the daemon's other
// commands end at any time.
func (o *orphans) reapWhile(lost <-chan struct{}) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		select {
		case <-ended:
			o.reap(nil)
		case <-lost:
			return
		}
	}
}

func (o *orphans) Lock()   { o.mu.Lock() }
func (o *orphans) Unlock() { o.mu.Unlock() }

// reap takes in the orphans that have ended, each by its PID: what else has
// ended is somebody's who waits for it.
func (o *orphans) reap(held map[int]*member) {
	if !anyZombie() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	some := false
	for _, pid := range o.strangers(held) {
		if p, ok := readProcess(pid); ok && p.dead() {
			reaped, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
			some = some || err == nil && reaped == pid
		}
	}
	if some {
		close(o.turns)
		o.turns = make(chan struct{})
	}
}

// anyZombie reports whether a child of this process has ended and is not
// reaped.
func anyZombie() bool {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		return false
	}
	return info.Signo != 0
}

// strangers returns our children that this process did not start. The children
// are listed before the descriptors: one that is started in between is not
// listed, and one that is reaped in between is no child any more.
func (o *orphans) strangers(members map[int]*member) (pids []int) {
	children := ourChildren()
	if len(children) == 0 {
		return nil
	}
	held := heldProcesses(members)
	for _, pid := range children {
		if members[pid] != nil || o.exact && !held[pid] || marked(o.owner, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func marked(owner string, pid int) bool {
	_, ok := markOf(owner, pid)
	return ok
}

func (o *orphans) roots(members map[int]*member) (pids []int) {
	all := o.strangers(members)
	if len(o.before) == 0 {
		return all
	}
	for _, pid := range all {
		p, ok := readProcess(pid)
		if start, before := o.before[pid]; ok && (!before || start != p.start) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (o *orphans) pause(limit time.Duration) {
	o.mu.Lock()
	turn := o.turns
	o.mu.Unlock()
	select {
	case <-turn:
	case <-time.After(limit):
	}
}

// Clear ends what a keeper that was killed has left below this process, whatever
// became of its marks: it asks with SIGTERM, forces after grace, and returns
// nil once this process has no child that it did not start. A *SurvivorsError
// names what could not be ended. It waits for Lost, and returns within grace
// and five seconds after that, or when ctx ends. What was adopted elsewhere is
// for End. A keeper that left by itself and has left nothing is cleared.
func (k *Keeper) Clear(ctx context.Context, grace time.Duration) error {
	select {
	case <-k.lost:
	case <-ctx.Done():
		return ctx.Err()
	}
	if k.clean {
		return nil
	}
	s := &sweep{of: k.orphans}
	defer s.close()
	s.look()
	s.each(func(m *member) {
		m.signal(unix.SIGTERM)
		m.signal(unix.SIGCONT)
	})
	for until := time.Now().Add(grace); ; {
		k.orphans.reap(s.members)
		if len(s.left()) == 0 {
			return nil
		}
		wait := time.Until(until)
		if wait <= 0 {
			break
		}
		k.orphans.pause(min(wait, 10*time.Millisecond))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	until := time.Now().Add(hardLimit)
	s.freeze(time.Second)
	if left := s.kill(until); len(left) > 0 {
		return &SurvivorsError{Left: left}
	}
	return nil
}
