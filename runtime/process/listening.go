package process

import (
	"sync"
	"time"

	"github.com/locald/locald/internal/sockets"
)

// listening asks what is listened on in this host. Those who ask while another
// answer is under way share the next one.
type listening struct {
	mu    sync.Mutex
	at    time.Time // when the question was put
	open  []sockets.Socket
	since map[uint64]time.Time // by inode of those: when it was known that they were
}

func (l *listening) now() ([]sockets.Socket, error) {
	asked := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.After(asked) {
		return l.open, nil
	}
	at := time.Now()
	open, err := sockets.Listening()
	if err == nil {
		l.at, l.open = at, open
		l.date(time.Now())
	}
	return open, err
}

// date notes when those were first heard of that are listened on.
func (l *listening) date(now time.Time) {
	since := make(map[uint64]time.Time, len(l.open))
	for _, s := range l.open {
		first, known := l.since[s.Inode]
		if !known {
			first = now
		}
		since[s.Inode] = first
	}
	l.since = since
}

// after reports whether a socket may have been listened on only after a time.
func (l *listening) after(s sockets.Socket, at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, known := l.since[s.Inode]
	return !known || first.After(at)
}

// look is which of the sockets that were listened on a run's processes had.
type look struct {
	at         time.Time
	open, held []sockets.Socket
}
