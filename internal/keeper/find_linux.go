package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
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

// Find returns the runs of owner of which processes are there, by their marks:
// whoever started them, and whatever became of their parents; and by what the
// keepers of the state directory dir have on record, if it is not empty.
// Processes that have ended and are not reaped do not count, nor do this
// process and its keepers.
func Find(ctx context.Context, dir, owner string) ([]Found, error) {
	if err := checkOwner(owner); err != nil {
		return nil, err
	}
	s := &search{owner: owner}
	kept := records(dir, owner)
	err := s.pass(ctx)
	// Who changes its PID is missed by a pass. Where a keeper was killed that may
	// have left such a one, the newest processes are looked at for a while.
	for until := time.Now().Add(quietWindow); len(kept) > 0 && s.vanished && err == nil && time.Now().Before(until); {
		eachNewest(s.look)
		err = s.pass(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("marked processes: %w", err)
	}
	all := merge(append(s.all, recorded(kept, owner)...))
	if len(all) == 0 {
		forget(kept)
	}
	return all, nil
}

// search is for the runs of one owner.
type search struct {
	owner    string
	all      []Found
	vanished bool // the last pass met a process that was gone before it could be read
}

func (s *search) pass(ctx context.Context) error {
	s.vanished = false
	err := eachProcess(func(pid int) {
		if ctx.Err() == nil && !s.look(pid) && vanished(pid) {
			s.vanished = true
		}
	})
	return errors.Join(err, ctx.Err())
}

// look notes a process that carries a mark.
func (s *search) look(pid int) bool {
	mark, ok := markOf(s.owner, pid)
	if !ok || pid == os.Getpid() {
		return false
	}
	if p, ok := readProcess(pid); !ok || p.dead() {
		s.vanished = true // it may be another process by now
		return false
	}
	for i := range s.all {
		if s.all[i].Mark.Same(mark) {
			if !slices.Contains(s.all[i].PIDs, pid) {
				s.all[i].PIDs = append(s.all[i].PIDs, pid)
			}
			s.all[i].Mark = s.all[i].Mark.join(mark)
			return true
		}
	}
	s.all = append(s.all, Found{Mark: mark, PIDs: []int{pid}})
	return true
}

func vanished(pid int) bool {
	return unix.Access("/proc/"+strconv.Itoa(pid), unix.F_OK) != nil
}

// eachNewest calls f with the numbers about the newest process, for a while:
// PIDs are handed out upwards.
func eachNewest(f func(pid int) bool) {
	for range 60 {
		newest := newestPID()
		for pid := newest + 2; pid > newest-12 && pid > 1; pid-- {
			f(pid)
		}
	}
}

// recorded returns what is there of what keepers have on record.
func recorded(kept []record, owner string) (all []Found) {
	for _, r := range kept {
		for _, run := range r.Runs {
			f := Found{Mark: r.mark(run)}
			for _, id := range run.Processes {
				if id.there(owner) {
					f.PIDs = append(f.PIDs, id.PID)
				}
			}
			if len(f.PIDs) > 0 {
				all = append(all, f)
			}
		}
		if r.Group == nil {
			continue
		}
		for number, g := range r.Group.runs() {
			if g.populated() {
				all = append(all, Found{Mark: Mark{Owner: owner, Number: number}, PIDs: g.pids()})
			}
		}
	}
	return all
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
		for _, pid := range f.PIDs {
			if !slices.Contains(merged[i].PIDs, pid) {
				merged[i].PIDs = append(merged[i].PIDs, pid)
			}
		}
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
// process is identified while it is pinned: by its mark, by what a keeper of
// the state directory dir has on record of it, by its control group or as the
// child of one that was. It returns within grace and five seconds, or when ctx
// ends.
func End(ctx context.Context, dir string, runs []Mark, grace time.Duration) error {
	if len(runs) == 0 {
		return nil
	}
	e := newEnding(dir, runs)
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
	for _, g := range e.groups {
		g.kill()
	}
	e.freeze(ctx, time.Second)
	e.quiet, e.strike = time.Now(), unix.SIGKILL
	for time.Since(e.quiet) < e.window() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return e.last(ctx)
		}
		e.pass()
		e.each(unix.SIGKILL)
		if len(e.members) > 0 {
			e.quiet = time.Now()
			_ = e.await(ctx, 5*time.Millisecond)
		}
		for _, g := range e.groups {
			if !g.remove() {
				g.kill()
				e.quiet = time.Now()
			}
		}
	}
	return nil
}

// lastMoment is for what was killed just before time was up: on a machine that
// is too busy it has ended, and nobody had the time to look.
const lastMoment = 700 * time.Millisecond

// last looks a last time when time is up, for as long as proves that nothing is
// there that changes its PID.
func (e *ending) last(ctx context.Context) error {
	if err := e.await(ctx, lastMoment-quietWindow); err != nil {
		return err
	}
	e.pass()
	for until := time.Now().Add(quietWindow); e.moving() && time.Now().Before(until); {
		if err := ctx.Err(); err != nil {
			return err
		}
		e.pass()
	}
	if left := e.survivors(); len(left) > 0 {
		return &SurvivorsError{Left: left}
	}
	return nil
}

// moving reports whether there was a finding just now, and that is gone.
func (e *ending) moving() bool { return len(e.members) == 0 && time.Since(e.quiet) < quietWindow }

// Gone waits until no process of the run is found, as Find does.
func Gone(ctx context.Context, dir string, mark Mark) error {
	for {
		e := newEnding(dir, []Mark{mark})
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
	owner    string
	runs     []Mark
	known    []identity  // what is on record of the runs
	groups   []*runGroup // of the runs
	members  map[int]*member
	strike   unix.Signal  // sent to each when it is found; 0 is none
	ended    map[int]bool // processes with a mark that were met only when they had ended
	vanished bool         // the last pass met a process that was gone before it could be read
	blind    time.Time    // when one last did
	quiet    time.Time    // when there was last a finding
	latest   int          // which process that was
}

func newEnding(dir string, runs []Mark) *ending {
	e := &ending{owner: runs[0].Owner, runs: runs, members: map[int]*member{}, ended: map[int]bool{}}
	for _, r := range records(dir, e.owner) {
		for _, run := range r.Runs {
			if e.wants(r.mark(run)) {
				e.known = append(e.known, run.Processes...)
			}
		}
		if r.Group == nil {
			continue
		}
		for number, g := range r.Group.runs() {
			if e.wants(Mark{Owner: e.owner, Number: number}) {
				e.groups = append(e.groups, g)
			}
		}
	}
	return e
}

func (e *ending) wants(m Mark) bool { return slices.ContainsFunc(e.runs, m.Same) }

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
// ones for a while.
func (e *ending) pass() {
	for pid, m := range e.members {
		if p, ok := readProcess(pid); !ok || p.dead() || !m.alive() {
			m.close()
			delete(e.members, pid)
			e.ended[pid] = true
		}
	}
	e.vanished = false
	_ = eachProcess(func(pid int) {
		if !e.try(pid) && vanished(pid) {
			e.vanished = true
		}
	})
	e.passKnown()
	if !e.vanished {
		return
	}
	e.blind = time.Now()
	eachNewest(e.try)
}

// passKnown pins what is known otherwise than by its mark: once what is on
// record, each time what is in the groups, and what is below those pinned.
func (e *ending) passKnown() {
	for _, id := range e.known {
		e.claim(id.PID, func(m *member) bool { return id.is(m, e.owner) })
	}
	for _, g := range e.groups {
		for _, pid := range g.pids() {
			e.claim(pid, func(*member) bool { return slices.Contains(g.pids(), pid) })
		}
	}
	parents := slices.Collect(maps.Keys(e.members))
	for len(parents) > 0 {
		parent := parents[0]
		parents = parents[1:]
		children, _ := childrenOf(parent)
		for _, pid := range children {
			fresh := e.claim(pid, func(*member) bool {
				p, ok := readProcess(pid)
				return ok && p.parent == parent && e.members[parent].alive()
			})
			if fresh {
				parents = append(parents, pid)
			}
		}
	}
}

// claim pins a process of which is says while it is pinned that it is ours.
func (e *ending) claim(pid int, is func(*member) bool) (fresh bool) {
	if e.members[pid] != nil || pid == os.Getpid() {
		return false
	}
	m := pin(pid)
	p, ok := readProcess(pid)
	if !ok || p.dead() || !is(m) || !m.alive() {
		m.close()
		return false
	}
	m.known = true
	e.members[pid] = m
	e.quiet, e.latest = time.Now(), pid
	return true
}

// try pins a process if it carries one of the marks. The mark is read while the
// process is pinned, so no number can have passed to another before the signal,
// and that goes out at once: what changes its PID is another process by the end
// of a pass.
func (e *ending) try(pid int) bool {
	if e.members[pid] != nil {
		return true
	}
	if pid == os.Getpid() || !e.belongs(pid) {
		return false
	}
	m := pin(pid)
	p, ok := readProcess(pid)
	if (!ok || p.dead()) && !e.ended[pid] {
		e.ended[pid], e.vanished = true, true // it may be another process by now
	}
	if !ok || p.dead() || !e.belongs(pid) || !m.signal(e.strike) && m.refused == nil {
		m.close()
		return false
	}
	e.members[pid] = m
	e.quiet, e.latest = time.Now(), pid
	return true
}

// each signals the members that still carry a mark.
func (e *ending) each(sig unix.Signal) {
	for pid, m := range e.members {
		if m.known || e.belongs(pid) {
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
	return parseLoadavg(b)
}

func parseLoadavg(b []byte) (newest int) {
	fields := bytes.Fields(b)
	if len(fields) != 5 {
		return 0
	}
	pid, err := strconv.Atoi(string(fields[4]))
	if err != nil || pid < 0 || pid > 1<<22 { // PID_MAX_LIMIT
		return 0
	}
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
	e.strike = unix.SIGSTOP
	until := time.Now().Add(limit)
	for quiet := 0; quiet < 3 && time.Now().Before(until) && ctx.Err() == nil; quiet++ {
		e.pass()
		for pid, m := range e.members {
			p, ok := readProcess(pid)
			if ok && !p.dead() && !p.stopped() && p.state != 'D' && (m.known || e.belongs(pid)) && m.signal(unix.SIGSTOP) {
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
	if e.moving() {
		left = append(left, Survivor{PID: e.latest, Reason: "was there a moment ago, and may have changed its PID"})
	}
	return left
}
