package keeper

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
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
	Start uint64 `json:"start"` // ticks
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
// a service forks it forks mostly when it starts.
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
	wake chan struct{}

	mu      sync.Mutex
	stirred map[*run]bool

	record record
	known  map[*run][]identity
	failed bool
}

func (h *host) openLedger(dir, name string) *ledger {
	l := &ledger{host: h, path: filepath.Join(dir, recordPrefix+name+recordSuffix), wake: make(chan struct{}, 1), stirred: map[*run]bool{}, known: map[*run][]identity{}}
	boot, err := Boot()
	self := pin(os.Getpid())
	defer self.close()
	id, ok := identify(self)
	if err != nil || !ok {
		return nil
	}
	l.record = record{Boot: boot, Owner: h.owner, Keeper: id}
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
	if r != nil {
		l.mu.Lock()
		l.stirred[r] = true
		l.mu.Unlock()
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// keep looks a few times after each stir, at growing distances.
func (l *ledger) keep(quit <-chan struct{}) {
	timer := time.NewTimer(0)
	<-timer.C
	step := len(looks)
	for {
		select {
		case <-l.wake:
			if step != 0 {
				step = 0
				timer.Reset(looks[0])
			}
		case <-timer.C:
			step++
			l.look(step == len(looks))
			if step < len(looks) {
				timer.Reset(looks[step] - looks[step-1])
			}
		case <-quit:
			return
		}
	}
}

// look writes down what is there of the runs that were stirred. The last of
// several looks forgets which these were.
func (l *ledger) look(last bool) {
	l.mu.Lock()
	stirred := make(map[*run]bool, len(l.stirred))
	for r := range l.stirred {
		stirred[r] = true
	}
	if last {
		clear(l.stirred)
	}
	l.mu.Unlock()
	s := &sweep{members: map[int]*member{}}
	defer s.close()
	whose := l.host.family(s, stirred)
	found := map[*run][]identity{}
	for pid, r := range whose {
		if id, ok := identify(s.members[pid]); ok {
			found[r] = append(found[r], id)
		}
	}
	l.host.mu.Lock()
	alive := make(map[*run]bool, len(l.host.runs))
	for _, r := range l.host.runs {
		alive[r] = true
	}
	l.host.mu.Unlock()
	for r := range l.known {
		if !alive[r] {
			delete(l.known, r)
		}
	}
	for r, ids := range found {
		if alive[r] {
			l.known[r] = ids
		}
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

// family pins the processes of the runs, and whatever lost its parent with
// what is below that, and tells whose each is.
func (h *host) family(s *sweep, runs map[*run]bool) map[int]*run {
	whose := map[int]*run{}
	var parents []int
	h.mu.Lock()
	for _, r := range h.runs {
		if runs[r] && !r.reaped {
			whose[r.pid] = r
		}
	}
	for _, pid := range h.adopted() {
		for _, r := range h.runs {
			if h.belongs(r, pid) {
				whose[pid] = r
				break
			}
		}
	}
	for pid := range whose {
		s.add(pid)
		parents = append(parents, pid)
	}
	h.mu.Unlock()
	for len(parents) > 0 {
		parent := parents[0]
		parents = parents[1:]
		for _, pid := range s.addChildren(parent) {
			if whose[pid] == nil {
				whose[pid] = whose[parent]
				parents = append(parents, pid)
			}
		}
	}
	return whose
}
