package keeper

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// kin are the processes below this one that a sweep is to end. While it is
// locked no child of this process is reaped, but for those that this process
// started and waits for by name.
type kin interface {
	sync.Locker
	// roots returns those of our children that are kin. It is locked. What the
	// sweep holds already is kin when it becomes our child.
	roots(held map[int]*member) []int
	reap(held map[int]*member)
	pause(limit time.Duration) // until the next reaping, at most so long
}

// sweep is the forced end of what is below this process. It pins what it finds,
// so that none is signalled that took over a number.
type sweep struct {
	of      kin
	members map[int]*member
}

// member is a pinned process of the run.
type member struct {
	pid, group int
	pidfd      int  // -1 where the kernel or our limits do not allow one
	known      bool // to be the run's otherwise than by its mark
	refused    error
}

func pin(pid int) *member {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		fd = -1
	}
	return &member{pid: pid, pidfd: fd}
}

func (m *member) close() {
	if m.pidfd >= 0 {
		_ = unix.Close(m.pidfd)
	}
}

func (m *member) signal(sig unix.Signal) bool {
	if m.pidfd < 0 {
		return false
	}
	err := unix.PidfdSendSignal(m.pidfd, sig, nil, 0)
	if err == unix.EPERM {
		m.refused = err
	}
	return err == nil
}

// alive reports whether the process has not been reaped; a refusal is an answer
// of a living one.
func (m *member) alive() bool {
	return m.pidfd >= 0 && unix.PidfdSendSignal(m.pidfd, 0, nil, 0) != unix.ESRCH
}

func (s *sweep) close() { s.each((*member).close) }

func (s *sweep) each(f func(*member)) {
	for _, m := range s.members {
		f(m)
	}
}

// look pins the run's processes that are there: our own children among them,
// and down from these whatever they did to their marks.
func (s *sweep) look() {
	if s.members == nil {
		s.members = map[int]*member{}
	}
	for pid, m := range s.members {
		if !m.alive() {
			m.close()
			delete(s.members, pid)
		}
	}
	s.of.Lock()
	roots := s.of.roots(s.members)
	for _, pid := range roots {
		s.add(pid) // our child, and it is not reaped while the lock is held
	}
	s.of.Unlock()
	for len(roots) > 0 {
		parent := roots[0]
		roots = append(roots[1:], s.addChildren(parent)...)
	}
}

func (s *sweep) add(pid int) {
	m := s.members[pid]
	if m == nil {
		m = pin(pid)
		s.members[pid] = m
	}
	if p, ok := readProcess(pid); ok {
		m.group = p.group
	}
}

// addChildren pins the children of a member. A process is one if, while both
// are pinned, it names the other as its parent.
func (s *sweep) addChildren(parent int) (added []int) {
	above := s.members[parent]
	children, _ := childrenOf(parent)
	for _, pid := range children {
		if s.members[pid] != nil {
			added = append(added, pid)
			continue
		}
		m := pin(pid)
		p, ok := readProcess(pid)
		if !ok || p.parent != parent || !above.alive() || !m.alive() {
			m.close() // it moved; the next look finds it where it is
			continue
		}
		m.group = p.group
		s.members[pid] = m
		added = append(added, pid)
	}
	return added
}

// strike signals those of our children that are kin, quickly enough for one
// that hops from PID to PID.
func (s *sweep) strike(sig unix.Signal) {
	seen := map[int]bool{}
	for range 40 {
		fresh := false
		s.of.Lock()
		for _, pid := range s.of.roots(s.members) {
			if !seen[pid] {
				seen[pid], fresh = true, true
				_ = unix.Kill(pid, sig)
			}
		}
		s.of.Unlock()
		if !fresh {
			return
		}
	}
}

// freeze stops the processes until none is found that runs. Stopped ones
// keep their place in the number that the user may have, so that what forks
// without end runs out of room instead of outrunning the kill.
func (s *sweep) freeze(limit time.Duration) {
	until := time.Now().Add(limit)
	for quiet := 0; quiet < 3 && time.Now().Before(until); quiet++ {
		s.strike(unix.SIGSTOP)
		s.look()
		s.each(func(m *member) {
			p, ok := readProcess(m.pid)
			if ok && !p.dead() && !p.stopped() && p.state != 'D' && m.signal(unix.SIGSTOP) {
				quiet = -1
			}
		})
		s.of.reap(s.members)
	}
}

// kill kills until nothing is left, and returns what is there after that long.
func (s *sweep) kill(until time.Time) []Survivor {
	for {
		s.strike(unix.SIGKILL)
		s.look()
		s.each(func(m *member) { m.signal(unix.SIGKILL) })
		left := s.settle()
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(until) {
			// What is dead has ended, reaped or not.
			return s.survivors(left)
		}
	}
}

// dying is what the killed are given before the next look at them, which costs
// them time on a machine that they keep busy.
const dying = 50 * time.Millisecond

// settle takes in what has ended, and returns what is left after a moment.
func (s *sweep) settle() (left []int) {
	for until := time.Now().Add(dying); ; {
		s.of.reap(s.members)
		left = s.left()
		if len(left) == 0 || time.Now().After(until) {
			return left
		}
		s.of.pause(5 * time.Millisecond)
		if !s.doomed(left) {
			return left
		}
	}
}

// doomed reports whether all of these were killed.
func (s *sweep) doomed(pids []int) bool {
	for _, pid := range pids {
		if s.members[pid] == nil {
			return false
		}
	}
	return true
}

// left returns those of our children that are to end.
func (s *sweep) left() []int {
	s.of.Lock()
	defer s.of.Unlock()
	return s.of.roots(s.members)
}

// survivors names what is still there and alive.
func (s *sweep) survivors(roots []int) (left []Survivor) {
	for pid, m := range s.members {
		if p, ok := readProcess(pid); ok && !p.dead() && m.alive() {
			left = append(left, survivor(pid, m.refused))
		}
	}
	for _, pid := range roots {
		if p, ok := readProcess(pid); ok && !p.dead() && s.members[pid] == nil {
			left = append(left, survivor(pid, nil))
		}
	}
	return left
}
