package keeper

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/logs"
)

// stores are the log stores that this keeper writes, each open from the first
// byte for it to the end of the last stream that wrote to it.
type stores struct {
	log  *slog.Logger
	keep Retention
	tell func(storeNews)
	poll func() (*poller, error) // the same one each time
	wide atomic.Int32            // how many pipes are

	troubles troubles

	mu      sync.Mutex
	kept    map[string]Retention // by the directory that stores share, where it is not keep
	writers map[string]*writer
	foreign map[place][]*stream // those that Stream made, until they have ended
}

type place struct {
	dir string
	run int
}

func newStores(keep Retention, log *slog.Logger, tell func(storeNews)) *stores {
	return &stores{log: log, keep: keep, tell: tell, poll: sync.OnceValues(newPoller), troubles: troubles{all: map[string]*trouble{}}, writers: map[string]*writer{}, foreign: map[place][]*stream{}}
}

// writer is one that is open, and how many use it.
type writer struct {
	*logs.Writer
	users int
}

// writer opens a store, or shares it with whoever else writes to it, until
// release is called.
func (s *stores) writer(dir string) (*logs.Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.writers[dir]; w != nil {
		w.users++
		return w.Writer, nil
	}
	shared := filepath.Dir(dir)
	keeps := s.keeps(shared)
	w, err := logs.OpenWriter(dir, logs.Limits{
		SegmentBytes: keeps.segment(), MaxAge: keeps.Age, Rotated: func() { s.prune(shared) },
		Trouble: func(cause error, missing int64) { s.trouble(dir, cause, missing) },
	})
	if err == nil {
		s.writers[dir] = &writer{w, 1}
	}
	return w, err
}

// calm is how long output has to be stored again before that is said: on a disk
// that is almost full the small fits and the next does not.
const calm = time.Second

// troubles are the stores that cannot be written, or could not a moment ago.
type troubles struct {
	mu  sync.Mutex
	all map[string]*trouble
}

type trouble struct {
	missing int64
	over    *time.Timer // nil while it lasts
}

// trouble says once that output cannot be stored, and once that it can again,
// with how many bytes are missing.
func (s *stores) trouble(dir string, cause error, missing int64) {
	s.troubles.mu.Lock()
	defer s.troubles.mu.Unlock()
	t := s.troubles.all[dir]
	if t == nil {
		t = &trouble{}
		s.troubles.all[dir] = t
		s.log.Warn("output is not stored", "dir", dir, "cause", cause)
		s.tell(storeNews{[]byte(dir), fmt.Sprint(cause)})
	}
	t.missing += missing
	if t.over != nil {
		t.over.Stop()
		t.over = nil
	}
	if cause == nil {
		t.over = time.AfterFunc(calm, func() { s.calmed(dir, t) })
	}
}

func (s *stores) calmed(dir string, t *trouble) {
	s.troubles.mu.Lock()
	defer s.troubles.mu.Unlock()
	if s.troubles.all[dir] != t || t.over == nil {
		return // it has begun again
	}
	delete(s.troubles.all, dir)
	s.log.Info("output is stored again", "dir", dir, "missing_bytes", t.missing)
	s.tell(storeNews{Log: []byte(dir)})
}

// release closes a store that nobody uses any more. One that holds what it could
// not write is kept, and tries on.
func (s *stores) release(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.writers[dir]
	if w.users--; w.users > 0 || w.Err() != nil {
		return
	}
	delete(s.writers, dir)
	if err := w.Close(); err != nil {
		s.log.Warn("log store is not closed", "dir", dir, "cause", err)
	}
}

// keeps is how much the stores in a directory keep. The lock is held.
func (s *stores) keeps(shared string) Retention {
	if much, own := s.kept[shared]; own {
		return much
	}
	return s.keep
}

// retain changes how much the stores in a directory keep.
func (s *stores) retain(shared string, much Retention) {
	s.mu.Lock()
	if s.kept == nil {
		s.kept = map[string]Retention{}
	}
	s.kept[shared] = much
	s.mu.Unlock()
	go s.prune(shared) // a disk that hangs keeps nobody from being heard
}

// prune makes the stores in a directory keep to what they share.
func (s *stores) prune(shared string) {
	s.mu.Lock()
	much := s.keeps(shared)
	s.mu.Unlock()
	if much.Bytes <= 0 && much.Age <= 0 {
		return
	}
	entries, err := os.ReadDir(shared)
	if err != nil {
		return
	}
	var dirs []string
	for _, entry := range entries {
		if entry.IsDir() {
			dirs = append(dirs, filepath.Join(shared, entry.Name()))
		}
	}
	if err := logs.Prune(dirs, much.Bytes, much.Age, time.Now()); err != nil {
		s.log.Warn("old output is not removed", "dir", shared, "cause", err)
	}
}

func (s *stores) note(dir string, run int, text string, at time.Time) {
	w, err := s.writer(dir)
	if err != nil {
		s.log.Warn("event is not stored", "dir", dir, "event", text, "cause", err)
		return
	}
	_ = w.Event(run, text, at) // told by trouble, and held until it can be stored
	s.release(dir)
}

// adopt reads pipes that were received to their end.
func (s *stores) adopt(dir string, run int, fds []int) {
	at := place{dir, run}
	for i, name := range []logs.Stream{logs.Stdout, logs.Stderr} {
		if err := s.receive(at, fds[i], name); err != nil {
			s.log.Warn("output is not stored", "dir", dir, "cause", err)
			_ = unix.Close(fds[i])
		}
	}
}

func (s *stores) receive(at place, fd int, name logs.Stream) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	s.mu.Lock() // a stream that has ended already is not left before it is there
	defer s.mu.Unlock()
	one, err := s.stream(fd, source{dir: at.dir, run: at.run, name: name, ended: func(one *stream) {
		one.finish()
		s.leave(at, one)
	}})
	if err != nil {
		return err
	}
	s.foreign[at] = append(s.foreign[at], one)
	return nil
}

func (s *stores) leave(at place, one *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []*stream
	for _, other := range s.foreign[at] {
		if other != one {
			left = append(left, other)
		}
	}
	if len(left) == 0 {
		delete(s.foreign, at)
		return
	}
	s.foreign[at] = left
}

// flush waits for the streams of a run that were received.
func (s *stores) flush(dir string, run int) {
	s.mu.Lock()
	all := s.foreign[place{dir, run}]
	s.mu.Unlock()
	for _, one := range all {
		<-one.stored
	}
}

// close stores what is unfinished.
func (s *stores) close() error {
	s.mu.Lock()
	var open []*stream
	for _, streams := range s.foreign {
		open = append(open, streams...)
	}
	s.mu.Unlock()
	for _, one := range open {
		one.finish()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var first error
	for _, w := range s.writers {
		if err := w.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
