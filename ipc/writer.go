package ipc

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// maxPending is how many bytes may wait for a slow client before send blocks.
const maxPending = 256 << 10

// errSlow is what a handler gets that writes to a client which takes nothing.
var errSlow = errors.New("the client does not read")

// writer hands lines to a client. One goroutine writes whatever has come
// together since its last write, so that many small lines cost few system
// calls and none waits for a timer.
type writer struct {
	conn     *net.UnixConn
	patience time.Duration // without progress; 0 is for ever. Set before the first send

	mu      sync.Mutex
	changed sync.Cond
	pending []byte
	err     error
	started bool
	closing bool
	hurried bool
	done    chan struct{}
}

func newWriter(conn *net.UnixConn, patience time.Duration) *writer {
	w := &writer{conn: conn, patience: patience, done: make(chan struct{})}
	w.changed.L = &w.mu
	return w
}

// send queues v as one line. It blocks while too much waits, and returns the
// error that ended the connection.
func (w *writer) send(v any) error {
	line, err := encode(v)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) > maxPending && w.err == nil && !w.closing {
		w.changed.Wait()
	}
	if w.err != nil {
		return w.err
	}
	if w.closing {
		return net.ErrClosed
	}
	if !w.started {
		w.started = true
		go w.loop()
	}
	w.pending = append(w.pending, line...)
	w.changed.Broadcast()
	return nil
}

// fail sends an error as the last object. Nobody hears of an error when the
// connection itself is what failed.
func (w *writer) fail(err error) {
	var fault *Error
	if !errors.As(err, &fault) {
		fault = &Error{Code: CodeInternal, Message: err.Error()}
	}
	_ = w.send(failure{fault})
}

// close returns when everything sent has been taken or the client is gone.
// Closing twice is closing once.
func (w *writer) close() {
	w.mu.Lock()
	w.closing = true
	started := w.started
	w.changed.Broadcast()
	w.mu.Unlock()
	if started {
		<-w.done
	}
}

// hurry gives what is queued one more second.
func (w *writer) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hurried = true
	_ = w.conn.SetWriteDeadline(time.Now().Add(time.Second))
}

func (w *writer) loop() {
	defer close(w.done)
	var batch []byte
	for {
		w.mu.Lock()
		for len(w.pending) == 0 && !w.closing {
			w.changed.Wait()
		}
		batch, w.pending = w.pending, batch[:0]
		w.changed.Broadcast()
		w.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		if err := w.write(batch); err != nil {
			w.mu.Lock()
			w.err = err
			w.changed.Broadcast()
			w.mu.Unlock()
			return
		}
	}
}

// write writes all of p. A write that timed out may still have made progress,
// and then has its time again.
func (w *writer) write(p []byte) error {
	for len(p) > 0 {
		w.extend()
		n, err := w.conn.Write(p)
		p = p[n:]
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errSlow
		case err != nil:
			return err
		}
	}
	return nil
}

func (w *writer) extend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.patience > 0 && !w.hurried {
		_ = w.conn.SetWriteDeadline(time.Now().Add(w.patience))
	}
}
