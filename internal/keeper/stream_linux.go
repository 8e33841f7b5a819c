package keeper

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/logs"
)

// stream reads one pipe into a log store. While nothing comes it costs a parked
// goroutine: the buffer is borrowed once there is something to read.
type stream struct {
	file   *os.File
	stores *stores
	dir    string
	run    int
	name   logs.Stream
	wrote  func(at time.Time) // told of output; may be nil

	input   *logs.Input
	missing int64 // bytes that came while the store could not be opened

	pumped chan struct{} // pump has returned
	once   sync.Once
	stored chan struct{} // everything is in the store
}

const chunk = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// stream takes the read end of a pipe over.
func (s *stores) stream(file *os.File, dir string, run int, name logs.Stream) *stream {
	return &stream{
		file: file, stores: s, dir: dir, run: run, name: name,
		pumped: make(chan struct{}), stored: make(chan struct{}),
	}
}

// pump reads until the last writer has closed its end, or finish is called.
func (s *stream) pump() {
	defer close(s.pumped)
	conn, err := s.file.SyscallConn()
	if err != nil {
		return
	}
	over := false
	ready := func(fd uintptr) bool {
		n, err := s.read(int(fd))
		over = n == 0
		return !errors.Is(err, unix.EAGAIN)
	}
	for !over {
		if conn.Read(ready) != nil {
			return // finish ended the wait
		}
	}
}

// read stores one chunk. n is 0 at the end and -1 when there is nothing.
func (s *stream) read(fd int) (n int, err error) {
	buf, ok := chunks.Get().(*[chunk]byte)
	if !ok {
		return 0, nil
	}
	defer chunks.Put(buf)
	for {
		n, err = unix.Read(fd, buf[:])
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EAGAIN) {
		return -1, err
	}
	if err != nil || n <= 0 {
		return 0, err
	}
	at := time.Now()
	if s.wrote != nil {
		s.wrote(at)
	}
	s.store(buf[:n], at)
	return n, nil
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
		_ = s.file.SetReadDeadline(time.Unix(1, 0))
		<-s.pumped
		s.drain()
		_ = s.file.Close()
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
	conn, err := s.file.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		for left := capacity(int(fd)); left > 0; {
			n, err := s.read(int(fd))
			if n <= 0 || err != nil {
				return
			}
			left -= n
		}
	})
}

// discard closes a pipe that nobody ever wrote to.
func (s *stream) discard() { _ = s.file.Close() }
