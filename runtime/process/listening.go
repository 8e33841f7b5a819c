package process

import (
	"sync"
	"time"

	"github.com/locald/locald/internal/sockets"
)

// listening asks what is listened on in this host. Those who ask while another
// answer is under way share the next one.
type listening struct {
	mu   sync.Mutex
	at   time.Time // when the question was put
	open []sockets.Socket
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
	}
	return open, err
}

// look is which of the sockets that were listened on a run's processes had.
type look struct {
	at         time.Time
	open, held []sockets.Socket
}
