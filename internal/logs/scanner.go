package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// errTorn says that the last block of a segment is not all there.
var errTorn = errors.New("block is not complete")

const (
	// bufferSize holds the blocks that a keeper stores, of 256 KiB and the beginning
	// of a line, with two headers.
	bufferSize = 264 << 10
	pageSize   = 4 << 10

	// largeBlock is the size of blocks that are read one by one, each with the
	// header of the next: what is read of a block before would have to be moved.
	largeBlock = 32 << 10
)

// buffers lets a thousand idle followers share what only active ones need.
var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// scanner goes through the blocks of one segment, reading what it must and no
// payload that is skipped.
type scanner struct {
	f       *os.File
	buf     *[]byte // from buffers, or nil
	lo, hi  int     // what is read of it and not passed; buf[lo] is at off
	off     int64
	end     int64 // how far the segment goes
	length  int   // of the block whose header was read last
	ahead   int   // how much to read at once
	skipped int64 // bytes that were no blocks

	// refill, if not nil, is called before bytes that were returned are
	// overwritten.
	refill func() error
}

func newScanner(f *os.File) *scanner { return &scanner{f: f, ahead: bufferSize} }

// refresh looks how far the segment goes.
func (s *scanner) refresh() error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	s.end = info.Size()
	return nil
}

// release gives the buffer back; what payload returned is gone.
func (s *scanner) release() {
	s.lo, s.hi = 0, 0
	if s.buf != nil && len(*s.buf) == bufferSize {
		buffers.Put(s.buf)
	}
	s.buf = nil
}

// header goes to the next block and reads its header. payload or skip must
// follow. io.EOF is the end of the segment, errTorn an end that is not complete
// yet; after both header can be called again.
func (s *scanner) header() (header, error) {
	for {
		if s.end-s.off < headerSize {
			s.lo, s.hi = 0, 0 // it may be written anew
			if s.end > s.off {
				return header{}, errTorn
			}
			return header{}, io.EOF
		}
		if err := s.need(headerSize); err != nil {
			return header{}, err
		}
		b := (*s.buf)[s.lo:s.hi]
		h, ok := decode(b)
		if !ok {
			s.resync(b)
			continue
		}
		if s.off+headerSize+int64(h.length) > s.end {
			s.lo, s.hi = 0, 0
			return header{}, errTorn
		}
		s.length = h.length
		return h, nil
	}
}

// resync passes over bytes that are no block, to where one may begin.
func (s *scanner) resync(b []byte) {
	n := bytes.Index(b[1:], magic[:]) + 1
	if n == 0 {
		n = len(b) - len(magic) + 1
	}
	s.lo += n
	s.off += int64(n)
	s.skipped += int64(n)
}

// payload returns the payload of the block whose header was read, and passes
// the block. It is valid until refill is called.
func (s *scanner) payload() ([]byte, error) {
	n := headerSize + s.length
	if err := s.need(n); err != nil {
		return nil, err
	}
	p := (*s.buf)[s.lo+headerSize : s.lo+n]
	s.lo += n
	s.off += int64(n)
	return p, nil
}

// skip passes the block whose header was read.
func (s *scanner) skip() {
	n := headerSize + s.length
	s.off += int64(n)
	if s.lo += n; s.lo > s.hi {
		s.lo, s.hi = 0, 0
		s.ahead = pageSize // more headers may be all that is wanted
	}
}

// need makes sure that n bytes from off on are in the buffer.
func (s *scanner) need(n int) error {
	if s.hi-s.lo >= n {
		return nil
	}
	if s.refill != nil {
		if err := s.refill(); err != nil {
			return err
		}
	}
	if s.buf == nil {
		s.buf = buffers.Get().(*[]byte)
	}
	if n > len(*s.buf) {
		bigger := make([]byte, 2*headerSize+maxPayload)
		copy(bigger, (*s.buf)[s.lo:s.hi])
		if len(*s.buf) == bufferSize {
			buffers.Put(s.buf)
		}
		s.buf = &bigger
	} else {
		copy(*s.buf, (*s.buf)[s.lo:s.hi])
	}
	s.lo, s.hi = 0, s.hi-s.lo
	for s.hi < n {
		upTo := max(n, s.hi+s.ahead)
		if n >= largeBlock {
			upTo = n + headerSize
		}
		room := (*s.buf)[s.hi:min(len(*s.buf), upTo)]
		s.ahead = min(2*s.ahead, bufferSize)
		if left := s.end - s.off - int64(s.hi); int64(len(room)) > left {
			room = room[:left]
		}
		got, err := s.f.ReadAt(room, s.off+int64(s.hi))
		s.hi += got
		if s.hi >= n {
			return nil
		}
		if errors.Is(err, io.EOF) {
			// It was cut while it was read.
			s.lo, s.hi = 0, 0
			s.end = s.off
			return io.EOF
		}
		if err != nil {
			return fmt.Errorf("log segment: %w", err)
		}
	}
	return nil
}
