package logs

import (
	"errors"
	"time"
)

const (
	maxHeld    = 64 << 10
	chunkCost  = 64 // what a chunk takes besides its bytes
	retryAfter = 100 * time.Millisecond
	retryEvery = time.Second
)

// backlog is what a Writer holds while its store cannot be written: the newest
// output, in order, and how much older output was dropped.
type backlog struct {
	cause  error
	since  time.Time // of the last attempt to write
	timer  *time.Timer
	chunks []chunk
	size   int

	lost    int64     // dropped, and no gap says so yet
	run     int       // of what was dropped last
	at      time.Time // when that was read
	torn    []*Input  // those of which something was dropped
	missing int64     // what gaps say by now
}

type chunk struct {
	in    *Input
	at    time.Time
	bytes []byte
	last  bool // the Input was closed
}

// hold begins or goes on with keeping output in memory.
func (w *Writer) hold(cause error) {
	if w.held == nil {
		w.held = &backlog{}
		// A service that says nothing more must not keep what it said last
		// out of the store.
		w.held.timer = time.AfterFunc(retryEvery, w.retry)
		if w.limits.Trouble != nil {
			w.limits.Trouble(cause, 0)
		}
	}
	w.held.cause, w.held.since = cause, time.Now()
}

func (w *Writer) retry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held != nil && !w.closed && !w.recover() {
		w.held.timer.Reset(retryEvery)
	}
}

// due reports whether the store can be written, trying it now and then.
func (w *Writer) due() bool {
	return time.Since(w.held.since) >= retryAfter && w.recover()
}

// recover stores what is held and reports whether that is all done.
func (w *Writer) recover() bool {
	b := w.held
	for len(b.torn) > 0 {
		// What follows is not the end of this line.
		if !b.torn[0].flush(b.at) {
			return false
		}
		b.torn = b.torn[1:]
	}
	if b.lost > 0 {
		h := header{stream: Gap, run: b.run, lines: 1, time: b.at.UnixNano()}
		if !w.put(h, gapText(b.lost, reason(b.cause))) {
			return false
		}
		b.missing += b.lost
		b.lost = 0
	}
	for len(b.chunks) > 0 {
		c := b.chunks[0]
		if !c.in.store(c.bytes, c.at) {
			return false
		}
		// The bytes are stored or pending, and must not be stored again.
		b.chunks[0].bytes = nil
		b.size -= len(c.bytes)
		if c.last && !c.in.flush(c.at) {
			return false
		}
		b.size -= chunkCost
		b.chunks = b.chunks[1:]
	}
	b.timer.Stop()
	w.held = nil
	if w.limits.Trouble != nil {
		w.limits.Trouble(nil, b.missing)
	}
	return true
}

// reason is the innermost error: what the system said, without the path.
func reason(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// push keeps p, drops the oldest for it, and returns the cause.
func (b *backlog) push(in *Input, p []byte, at time.Time, last bool) error {
	if excess := len(p) - maxHeld; excess > 0 {
		b.size = 0
		for _, c := range b.chunks {
			b.drop(c.in, len(c.bytes), c.at)
		}
		b.chunks = nil
		b.drop(in, excess, at)
		p = p[excess:]
	}
	if n := len(b.chunks); n > 0 && b.chunks[n-1].in == in && len(b.chunks[n-1].bytes)+len(p) <= maxLine {
		c := &b.chunks[n-1]
		c.bytes = append(c.bytes, p...)
		c.at, c.last = at, last
		b.size += len(p)
	} else {
		b.chunks = append(b.chunks, chunk{in: in, at: at, bytes: append([]byte(nil), p...), last: last})
		b.size += len(p) + chunkCost
	}
	for b.size > maxHeld+chunkCost {
		c := b.chunks[0]
		b.drop(c.in, len(c.bytes), c.at)
		b.size -= len(c.bytes) + chunkCost
		b.chunks = b.chunks[1:]
	}
	return b.cause
}

func (b *backlog) drop(in *Input, n int, at time.Time) {
	b.lost += int64(n)
	b.run, b.at = in.run, at
	for _, known := range b.torn {
		if known == in {
			return
		}
	}
	b.torn = append(b.torn, in)
}
