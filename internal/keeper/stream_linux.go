package keeper

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/logs"
)

// stream reads one pipe into a log store. While nothing comes it costs neither a
// goroutine nor a buffer.
type stream struct {
	source
	fd     int
	id     int32 // by which poll knows it
	poll   *poller
	stores *stores

	reading sync.Mutex // held while the pipe is read; guards what follows
	input   *logs.Input
	missing int64     // bytes that came while the store could not be opened
	empty   time.Time // when the pipe was found empty last
	wide    bool      // the pipe holds wideSize

	over   atomic.Bool // what is left is for finish to read
	once   sync.Once
	stored chan struct{} // everything is in the store
}

// source is what a stream reads, and who is told of it.
type source struct {
	dir   string
	run   int
	name  logs.Stream
	wrote func(at time.Time) // output came; may be nil
	ended func(*stream)      // the last writer has closed its end; may be nil
}

const (
	chunk = 256 << 10 // what is read for one block
	piece = 64 << 10  // and in one call: nobody can write to the pipe meanwhile

	// rest is how long a busy stream is left alone, so that many small writes
	// become one block. A line that comes by itself does not wait.
	rest = time.Millisecond
)

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// stream takes the read end of a pipe over, and reads it until the last writer
// has closed its end, or finish is called.
func (s *stores) stream(fd int, from source) (*stream, error) {
	poll, err := s.poll()
	if err != nil {
		return nil, err
	}
	one := &stream{source: from, fd: fd, poll: poll, stores: s, stored: make(chan struct{})}
	one.reading.Lock() // what is there already must not be read before id is set
	defer one.reading.Unlock()
	one.id, err = poll.add(fd, one.pump)
	return one, err
}

// pump reads as long as something comes.
func (s *stream) pump() {
	if s.readOn() && s.ended != nil {
		s.ended(s)
	}
}

// readOn is pump, and reports whether no more can come.
func (s *stream) readOn() (end bool) {
	s.reading.Lock()
	defer s.reading.Unlock()
	busy := time.Since(s.empty) < 2*rest
	for rested := false; !s.over.Load(); {
		n, end := s.read()
		switch {
		case end:
			return true
		case n >= s.size()/4:
			s.widen()
			busy, rested = true, false
		case n > 0 && busy, !rested && busy:
			time.Sleep(rest)
			rested = true
		default:
			s.empty = time.Now()
			s.narrow()
			if s.poll.again(s.fd, s.id) == nil {
				return false
			}
			time.Sleep(rest) // nobody would tell us
		}
	}
	return false
}

// read stores what is there, up to a chunk. end says that no more can come.
func (s *stream) read() (n int, end bool) {
	buf, ok := chunks.Get().(*[chunk]byte)
	if !ok {
		return 0, true
	}
	defer chunks.Put(buf)
	for n < chunk {
		got, err := unix.Read(s.fd, buf[n:min(n+piece, chunk)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if got <= 0 {
			end = !errors.Is(err, unix.EAGAIN)
			break
		}
		if n += got; got < piece {
			break
		}
	}
	if n > 0 {
		at := time.Now()
		if s.wrote != nil {
			s.wrote(at)
		}
		s.store(buf[:n], at)
	}
	return n, end
}

// store appends to the log store. Failures there never reach the service: it
// goes on, and the store says what is missing.
func (s *stream) store(p []byte, at time.Time) {
	if s.input == nil {
		w, err := s.stores.writer(s.dir)
		if err != nil {
			if s.missing == 0 {
				s.stores.trouble(s.dir, err, 0)
			}
			s.missing += int64(len(p))
			return
		}
		s.input = w.Input(s.run, s.name)
		if s.missing > 0 {
			s.stores.trouble(s.dir, nil, s.missing)
			s.missing = 0
		}
	}
	_ = s.input.Append(p, at) // told by trouble, and held until it can be stored
}

// finish stores what is in the pipe and closes it. It is for a time when the run
// has no process left: what else keeps the pipe open is not its own.
func (s *stream) finish() {
	s.once.Do(func() {
		s.over.Store(true)
		s.reading.Lock()
		defer s.reading.Unlock()
		s.drain()
		s.discard()
		s.gone()
		if s.input != nil {
			_ = s.input.Close() // as in store
			s.stores.release(s.dir)
		}
		close(s.stored)
	})
	<-s.stored
}

// drain reads what a pipe can hold, so that somebody else who writes without
// end cannot keep it.
func (s *stream) drain() {
	for left := capacity(s.fd); left > 0; {
		n, end := s.read()
		if n == 0 || end {
			return
		}
		left -= n
	}
}

// discard closes the pipe.
func (s *stream) discard() {
	s.poll.remove(s.fd, s.id)
	_ = unix.Close(s.fd)
}
