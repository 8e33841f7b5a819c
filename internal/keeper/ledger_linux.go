package keeper

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// identity is a process in one boot. The inode of a pidfd is given out once a
// boot, from Linux 6.9 on; where it is 0 the process is told by its mark and
// when it started.
type identity struct {
	PID   int    `json:"pid"`
	Inode uint64 `json:"inode,omitempty"`
	Start uint64 `json:"start,omitempty"` // ticks; 0 where the inode is enough
}

func identify(m *member) (id identity, ok bool) {
	p, ok := readProcess(m.pid)
	if !ok || p.dead() {
		return identity{}, false
	}
	return identity{PID: m.pid, Inode: inodeOf(m.pidfd), Start: p.start}, m.alive()
}

func inodeOf(pidfd int) uint64 {
	const pidfs = 0x50494446
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(pidfd, &fs) != nil || uint32(fs.Type) != pidfs || unix.Fstat(pidfd, &st) != nil {
		return 0
	}
	return st.Ino
}

// is reports whether a pinned process is the one that was identified.
func (id identity) is(m *member, owner string) bool {
	now, ok := identify(m)
	if !ok || now.PID != id.PID {
		return false
	}
	if id.Inode != 0 {
		return now.Inode == id.Inode
	}
	return now.Start == id.Start && marked(owner, id.PID)
}

// record is what a keeper writes down beside its lock, so that processes that
// lost every mark are found when it and the daemon were killed. It names what
// was there at the last look. A run of which nothing is left is not in it, and
// a keeper that has left nothing removes its record.
type record struct {
	Boot   string        `json:"boot"`
	Owner  string        `json:"owner"`
	Keeper identity      `json:"keeper"`
	Group  *groupRecord  `json:"group,omitempty"`
	Limits []string      `json:"limits,omitempty"` // the keeper's groups of version 1, made or not
	Runs   []runRecorded `json:"runs,omitempty"`

	path string
}

type groupRecord struct {
	Dir   string `json:"dir"`
	Inode uint64 `json:"inode"`
}

type runRecorded struct {
	Run       string     `json:"run"`
	Number    uint64     `json:"number"`
	Processes []identity `json:"processes"`
}

const recordPrefix, recordSuffix = "keeper-", ".json"

func (r *record) write(path string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// A kill keeps what was written, and after a loss of power no process of the
	// record is left: nothing has to reach the disk.
	temporary := path + ".new"
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// records returns what keepers have left on record of the owner and this boot.
// One that has ended and is on record has not seen all of its runs to their end.
func records(dir, owner string) (all []record) {
	if dir == "" {
		return nil
	}
	boot, err := Boot()
	if err != nil {
		return nil
	}
	paths, _ := filepath.Glob(filepath.Join(quoteGlob(dir), recordPrefix+"*"+recordSuffix))
	for _, path := range paths {
		r, ok := readRecord(path)
		if !ok || r.Owner != owner {
			continue
		}
		if r.path = path; r.Boot != boot {
			_ = os.Remove(path)
			continue
		}
		all = append(all, r)
	}
	return all
}

// forget removes the records of keepers that have ended and of which nothing was
// found.
func forget(kept []record) {
	for _, r := range kept {
		if r.over() {
			_ = os.Remove(r.path)
		}
	}
}

func quoteGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

func readRecord(path string) (r record, ok bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return record{}, false
	}
	defer f.Close()
	return r, json.NewDecoder(f).Decode(&r) == nil
}

// over reports whether nothing that the record names is there.
func (r *record) over() bool {
	if id := r.Keeper; id.there(r.Owner) {
		return false
	}
	if r.Group != nil && !r.Group.gone() {
		return false
	}
	for _, run := range r.Runs {
		for _, id := range run.Processes {
			if id.there(r.Owner) {
				return false
			}
		}
	}
	for _, dir := range r.Limits {
		var fs unix.Statfs_t
		if strings.HasPrefix(filepath.Base(dir), groupPrefix) && unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP_SUPER_MAGIC {
			removeGroup(dir)
		}
	}
	return true
}

func (id identity) there(owner string) bool {
	m := pin(id.PID)
	defer m.close()
	now, ok := identify(m)
	if id.Inode != 0 {
		return ok && now.Inode == id.Inode
	}
	return ok && now.Start == id.Start && (marked(owner, id.PID) || keeperProcess(owner, id.PID))
}

func keeperProcess(owner string, pid int) bool {
	limit, ok := lockLimit(pid)
	return ok && keeperOf(owner, limit)
}

// mark is what the processes of a recorded run carried.
func (r *record) mark(run runRecorded) Mark {
	return Mark{Owner: r.Owner, Run: run.Run, Number: run.Number}
}

// looks are when the ledger is brought up to date after something happened. What
// a service forks it forks mostly when it starts. A run is not looked at again
// where nobody on the machine has forked since.
var looks = [...]time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second, 8 * time.Second}

// stirring is how much later output of a run has its processes looked for anew:
// what does something may have forked for it.
const stirring = 5 * time.Second

// wrote is told of output of a run.
func (l *ledger) wrote(r *run, at time.Time) {
	if l == nil {
		return
	}
	if last := r.wrote.Load(); at.UnixNano()-last >= int64(stirring) && r.wrote.CompareAndSwap(last, at.UnixNano()) {
		l.stir(r)
	}
}

// ledger keeps the record of a keeper. It sleeps while nothing happens.
type ledger struct {
	host *host
	path string
	wake chan struct{} // holds a token when the next look is nearer than it was

	mu   sync.Mutex
	due  map[*run]attention // nil is for what has lost its parent, whose it may be
	next time.Time          // of the next look; zero is none

	record record
	known  map[*run][]identity // by PID
	inodes bool                // pidfds have some
	failed bool
}

// attention is when a run is looked at next.
type attention struct {
	at   time.Time
	step int    // of looks
	seen string // the newest process of the machine when it was looked at last
}

// newest is the number that was given out last to a process or thread; "" where
// that is not told. Of /proc/loadavg, which has it everywhere, some containers are
// given another one.
func newest() string {
	var buf [32]byte
	return string(readFile("/proc/sys/kernel/ns_last_pid", buf[:]))
}

func (h *host) openLedger(dir, name string) *ledger {
	l := &ledger{host: h, path: filepath.Join(dir, recordPrefix+name+recordSuffix), wake: make(chan struct{}, 1), due: map[*run]attention{}, known: map[*run][]identity{}}
	boot, err := Boot()
	self := pin(os.Getpid())
	defer self.close()
	id, ok := identify(self)
	if err != nil || !ok {
		return nil
	}
	l.record, l.inodes = record{Boot: boot, Owner: h.owner, Keeper: id}, id.Inode != 0
	if h.groups != nil {
		l.record.Group = &groupRecord{Dir: h.groups.dir, Inode: h.groups.inode}
	}
	for _, controller := range controllers {
		if dir := h.limits.separateGroup(controller); dir != "" {
			l.record.Limits = append(l.record.Limits, dir)
		}
	}
	l.save()
	return l
}

// stir has the processes of a run looked for; nil is no run in particular.
func (l *ledger) stir(r *run) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, waits := l.due[r]; waits && a.step == 0 {
		return
	}
	at := time.Now().Add(looks[0])
	l.due[r] = attention{at: at}
	if l.next.IsZero() || at.Before(l.next) {
		l.next = at
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// keep looks a few times after each stir, at growing distances.
func (l *ledger) keep(quit <-chan struct{}) {
	timer := time.NewTimer(0)
	<-timer.C
	settled := false
	for {
		select {
		case <-l.wake:
			settled = false
		case <-timer.C:
			l.look(l.take(time.Now(), newest()))
			l.mu.Lock()
			quiet := l.next.IsZero() || time.Until(l.next) > quietTime
			l.mu.Unlock()
			if quiet && !settled {
				settled = true
				debug.FreeOSMemory() // what starts and stops have taken
			}
		case <-quit:
			return
		}
		l.mu.Lock()
		if !l.next.IsZero() {
			timer.Reset(time.Until(l.next))
		}
		l.mu.Unlock()
	}
}

// quietTime is how far away the next look is when starts and stops are over.
const quietTime = 2 * time.Second

// take returns the runs that are due and may have forked, and decides when the
// next look is: those that come due one after another are looked at together.
func (l *ledger) take(now time.Time, newest string) map[*run]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := map[*run]bool{}
	l.next = time.Time{}
	for r, a := range l.due {
		if !a.at.After(now) {
			if newest == "" || newest != a.seen {
				taken[r], a.seen = true, newest
			}
			a.step++
			if a.step == len(looks) {
				delete(l.due, r)
				continue
			}
			a.at = a.at.Add(looks[a.step] - looks[a.step-1])
			l.due[r] = a
		}
		if l.next.IsZero() || a.at.Before(l.next) {
			l.next = a.at
		}
	}
	if soonest := now.Add(looks[0]); !l.next.IsZero() && l.next.Before(soonest) {
		l.next = soonest
	}
	return taken
}

// look writes down what is there of the runs that are due.
func (l *ledger) look(due map[*run]bool) {
	found := l.family(due)
	l.host.mu.Lock()
	there := make(map[*run]bool, len(l.host.runs))
	for _, r := range l.host.runs {
		there[r] = true
	}
	l.host.mu.Unlock()
	changed := l.failed
	for r := range l.known {
		if !there[r] {
			delete(l.known, r)
			changed = true
		}
	}
	for r, ids := range found {
		slices.SortFunc(ids, func(a, b identity) int { return a.PID - b.PID })
		if there[r] && !slices.Equal(l.known[r], ids) {
			l.known[r] = ids
			changed = true
		}
	}
	if !changed {
		return
	}
	l.record.Runs = l.record.Runs[:0]
	for r, ids := range l.known {
		l.record.Runs = append(l.record.Runs, runRecorded{Run: r.mark.Run, Number: r.mark.Number, Processes: ids})
	}
	l.save()
}

func (l *ledger) save() {
	err := l.record.write(l.path)
	if err != nil && !l.failed {
		l.host.log.Warn("ledger is not written", "cause", err)
	}
	l.failed = err != nil
}

// close removes the record when nothing is left.
func (l *ledger) close(left bool) error {
	if l == nil || left {
		return nil
	}
	err := os.Remove(l.path)
	if errors.Is(err, os.ErrNotExist) || l.failed {
		return nil // it was not written, which was told
	}
	return err
}

// family names the processes of the runs, and whatever lost its parent with what
// is below that. A run of which something has lost its parent is due.
func (l *ledger) family(due map[*run]bool) map[*run][]identity {
	s := &sweep{members: map[int]*member{}}
	defer s.close()
	whose := l.roots(due, s)
	found := make(map[*run][]identity, len(due))
	for parents := slices.Collect(maps.Keys(whose)); len(parents) > 0; parents = parents[1:] {
		pid := parents[0]
		r := whose[pid]
		if pid == r.pid {
			found[r] = append(found[r], r.self)
		} else if id, ok := identify(s.members[pid]); ok {
			found[r] = append(found[r], id)
		}
		if children, _ := childrenOf(pid); len(children) == 0 || !l.hold(s, r, pid) {
			continue
		}
		for _, child := range s.addChildren(pid) {
			if whose[child] == nil {
				whose[child] = r
				parents = append(parents, child)
			}
		}
	}
	return found
}

// roots are the main processes of the runs that are due, and what has lost its
// parent, which it pins.
func (l *ledger) roots(due map[*run]bool, s *sweep) map[int]*run {
	l.host.mu.Lock()
	defer l.host.mu.Unlock()
	whose := map[int]*run{}
	for _, pid := range l.host.adopted() {
		for _, r := range l.host.runs {
			if l.host.belongs(r, pid) {
				whose[pid], due[r], s.members[pid] = r, true, pin(pid)
				break
			}
		}
	}
	for pid, r := range l.host.mains {
		if !due[r] {
			continue
		}
		if r.self.PID == 0 {
			main := pin(pid)
			r.self, _ = l.identifyMain(main)
			main.close()
		}
		if r.self.PID != 0 {
			whose[pid] = r
		}
	}
	return whose
}

// hold pins a process that has children, if it is not: a main process is not
// pinned just to be named.
func (l *ledger) hold(s *sweep, r *run, pid int) bool {
	if s.members[pid] != nil {
		return true
	}
	l.host.mu.Lock()
	defer l.host.mu.Unlock()
	if l.host.mains[pid] != r {
		return false
	}
	s.members[pid] = pin(pid)
	return true
}

// identifyMain is identify for a child of ours that is not reaped: where its
// pidfd has an inode, that is enough.
func (l *ledger) identifyMain(m *member) (identity, bool) {
	if !l.inodes || m.pidfd < 0 {
		return identify(m)
	}
	var st unix.Stat_t
	err := unix.Fstat(m.pidfd, &st)
	return identity{PID: m.pid, Inode: st.Ino}, err == nil
}
