package keeper

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Found is a run of which marked processes are there.
type Found struct {
	Mark Mark
	PIDs []int
}

// Find returns the runs of owner of which processes are there, by their marks
// alone: whoever started them, and whatever became of their parents. Processes
// that have ended and are not reaped do not count, nor do this process and its
// keepers.
func Find(ctx context.Context, owner string) ([]Found, error) {
	if err := checkOwner(owner); err != nil {
		return nil, err
	}
	var all []Found
	err := eachProcess(func(pid int) {
		mark, ok := markOf(owner, pid)
		if !ok || pid == os.Getpid() || ctx.Err() != nil {
			return
		}
		if p, ok := readProcess(pid); !ok || p.dead() {
			return
		}
		for i := range all {
			if all[i].Mark.Same(mark) {
				all[i].PIDs = append(all[i].PIDs, pid)
				all[i].Mark = all[i].Mark.join(mark)
				return
			}
		}
		all = append(all, Found{Mark: mark, PIDs: []int{pid}})
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("marked processes: %w", err)
	}
	return merge(all), nil
}

func (m Mark) join(other Mark) Mark {
	if m.Run == "" {
		m.Run = other.Run
	}
	if m.Number == 0 {
		m.Number = other.Number
	}
	return m
}

// merge joins findings that became known as one after they were listed.
func merge(all []Found) (merged []Found) {
	for _, f := range all {
		i := slices.IndexFunc(merged, func(other Found) bool { return other.Mark.Same(f.Mark) })
		if i < 0 {
			merged = append(merged, f)
			continue
		}
		merged[i].Mark = merged[i].Mark.join(f.Mark)
		merged[i].PIDs = append(merged[i].PIDs, f.PIDs...)
	}
	return merged
}

// markOf reads what a process carries of an owner.
func markOf(owner string, pid int) (Mark, bool) {
	m := Mark{Owner: owner}
	if limit, ok := lockLimit(pid); ok {
		m.Number, _ = numberOf(owner, limit)
		if m.Number == 0 && keeperOf(owner, limit) {
			return m, false
		}
	}
	if runs := runsOf(owner, environ(pid)); len(runs) > 0 {
		m.Run = runs[0]
	}
	return m, m.Number != 0 || m.Run != ""
}

// keeperOf reports whether a limit is the one that a keeper of owner has itself.
func keeperOf(owner string, limit uint64) bool {
	if limit&1 == 1 {
		return false
	}
	_, ok := numberOf(owner, limit|1)
	return ok
}

// The windows without a finding after which nothing is taken to be left, once
// there was one or a process escaped the look. While processes go on escaping,
// as on a busy machine innocent ones do too, one of them may be what is looked
// for, changing its number faster than a pass reads.
const (
	quietWindow = 250 * time.Millisecond
	blindWindow = 2 * time.Second
)

// End ends the processes of the runs: it asks with SIGTERM, forces after grace,
// and returns nil once none is found any more. It is for processes that are not
// below a living keeper. A *SurvivorsError names what could not be ended. Each
// process is identified by its mark while it is pinned, immediately before each
// signal. It returns within grace and five seconds, or when ctx ends.
func End(ctx context.Context, runs []Mark, grace time.Duration) error {
	if len(runs) == 0 {
		return nil
	}
	e := &ending{runs: runs, members: map[int]*member{}}
	defer e.close()
	e.pass()
	if len(e.members) == 0 && !e.vanished {
		return ctx.Err()
	}
	e.each(unix.SIGTERM)
	e.each(unix.SIGCONT)
	if err := e.await(ctx, grace); err != nil {
		return err
	}
	deadline := time.Now().Add(hardLimit)
	e.freeze(ctx, time.Second)
	e.quiet = time.Now()
	for time.Since(e.quiet) < e.window() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return &SurvivorsError{Left: e.survivors()}
		}
		e.pass()
		e.each(unix.SIGKILL)
		if len(e.members) > 0 {
			e.quiet = time.Now()
			_ = e.await(ctx, 5*time.Millisecond)
		}
	}
	return nil
}

// Gone waits until no process carries the mark.
func Gone(ctx context.Context, mark Mark) error {
	for {
		e := &ending{runs: []Mark{mark}, members: map[int]*member{}}
		e.pass()
		if len(e.members) == 0 {
			return ctx.Err()
		}
		err := e.await(ctx, time.Second)
		e.close()
		if err != nil {
			return err
		}
	}
}

// ending is one sweep for marked processes.
type ending struct {
	runs     []Mark
	members  map[int]*member
	vanished bool      // the last pass met a process that was gone before it could be read
	blind    time.Time // when one last did
	quiet    time.Time // when there was last a finding
}

func (e *ending) window() time.Duration {
	if time.Since(e.blind) < quietWindow {
		return blindWindow
	}
	return quietWindow
}

func (e *ending) close() {
	for _, m := range e.members {
		m.close()
	}
}

func (e *ending) belongs(pid int) bool {
	return slices.ContainsFunc(e.runs, func(m Mark) bool { return m.Holds(pid) })
}

// pass looks at every process once, and when one has vanished, at the newest
// ones for a while: PIDs are handed out upwards.
func (e *ending) pass() {
	for pid, m := range e.members {
		if p, ok := readProcess(pid); !ok || p.dead() || !m.alive() {
			m.close()
			delete(e.members, pid)
		}
	}
	e.vanished = false
	_ = eachProcess(func(pid int) {
		if !e.try(pid) && unix.Access("/proc/"+strconv.Itoa(pid), unix.F_OK) != nil {
			e.vanished = true
		}
	})
	if !e.vanished {
		return
	}
	e.blind = time.Now()
	for range 60 {
		newest := newestPID()
		for pid := newest + 2; pid > newest-12 && pid > 1; pid-- {
			e.try(pid)
		}
	}
}

// try pins a process if it carries one of the marks. The mark is read while the
// process is pinned, and the pin is proved to hold after that, so no number can
// have passed to another in between.
func (e *ending) try(pid int) bool {
	if e.members[pid] != nil {
		return true
	}
	if pid == os.Getpid() || !e.belongs(pid) {
		return false
	}
	m := pin(pid)
	p, ok := readProcess(pid)
	if !ok || p.dead() || !e.belongs(pid) || !m.alive() {
		m.close()
		return false
	}
	e.members[pid] = m
	e.quiet = time.Now()
	return true
}

// each signals the members that still carry a mark.
func (e *ending) each(sig unix.Signal) {
	for pid, m := range e.members {
		if e.belongs(pid) {
			m.signal(sig)
		}
	}
}

// newestPID is the last field of /proc/loadavg.
func newestPID() int {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) != 5 {
		return 0
	}
	pid, _ := strconv.Atoi(string(fields[4]))
	return pid
}

// await waits until the members have ended, at most so long.
func (e *ending) await(ctx context.Context, grace time.Duration) error {
	until := time.Now().Add(grace)
	for _, m := range e.members {
		for m.pidfd >= 0 {
			left := time.Until(until)
			if left <= 0 || ctx.Err() != nil {
				return ctx.Err()
			}
			// A pidfd can be read once its process has ended.
			fds := []unix.PollFd{{Fd: int32(m.pidfd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds, int(min(left, 100*time.Millisecond).Milliseconds())+1)
			if n > 0 || err != nil && err != unix.EINTR {
				break
			}
		}
	}
	return ctx.Err()
}

func (e *ending) freeze(ctx context.Context, limit time.Duration) {
	until := time.Now().Add(limit)
	for quiet := 0; quiet < 3 && time.Now().Before(until) && ctx.Err() == nil; quiet++ {
		e.pass()
		for pid, m := range e.members {
			p, ok := readProcess(pid)
			if ok && !p.dead() && !p.stopped() && p.state != 'D' && e.belongs(pid) && m.signal(unix.SIGSTOP) {
				quiet = -1
			}
		}
		if len(e.members) == 0 && !e.vanished {
			return
		}
	}
}

func (e *ending) survivors() (left []Survivor) {
	for pid, m := range e.members {
		left = append(left, survivor(pid, m.refused))
	}
	return left
}
