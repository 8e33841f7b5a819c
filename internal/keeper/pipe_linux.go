package keeper

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/logs"
)

// pipes are the two pipes of a run. The write ends block, as a program expects
// of its standard output.
type pipes struct {
	streams []*stream
	write   []int
}

// pipes makes the pipes of a run, and reads them. wrote is told of output.
func (s *stores) pipes(dir string, run int, wrote func(at time.Time)) (*pipes, error) {
	p := &pipes{}
	for _, name := range []logs.Stream{logs.Stdout, logs.Stderr} {
		if err := p.add(s, source{dir: dir, run: run, name: name, wrote: wrote}); err != nil {
			p.discard()
			p.closeWrite()
			return nil, err
		}
	}
	return p, nil
}

func (p *pipes) add(s *stores, from source) error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	err := os.NewSyscallError("fcntl", unix.SetNonblock(ends[0], true))
	if err == nil {
		var one *stream
		if one, err = s.stream(ends[0], from); err == nil {
			p.streams, p.write = append(p.streams, one), append(p.write, ends[1])
			return nil
		}
	}
	closeAll(ends[:])
	return err
}

// discard closes what nobody has written to.
func (p *pipes) discard() {
	for _, one := range p.streams {
		one.discard()
	}
}

func (p *pipes) closeWrite() { closeAll(p.write) }

// capacity is how many bytes a pipe can hold.
func capacity(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return 1 << 20
	}
	return n
}

// How much a pipe holds. The kernel gives each user 64 MiB of pipes, and all of
// theirs next to nothing when that is used up, so few are wide at a time.
const (
	usualSize = 64 << 10
	wideSize  = 1 << 20
	maxWide   = 16
)

// size is how much the pipe holds.
func (s *stream) size() int {
	if s.wide {
		return wideSize
	}
	return usualSize
}

// widen makes the pipe of a service that writes much larger, so that it need
// not wait while what it wrote is stored, and writing to it cheaper.
func (s *stream) widen() {
	if s.wide {
		return
	}
	if s.stores.wide.Add(1) <= maxWide {
		_, err := unix.FcntlInt(uintptr(s.fd), unix.F_SETPIPE_SZ, wideSize)
		s.wide = err == nil
	}
	if !s.wide {
		s.stores.wide.Add(-1)
		return
	}
	s.poll.leave(s.fd)
}

func (s *stream) narrow() {
	if !s.wide {
		return
	}
	if _, err := unix.FcntlInt(uintptr(s.fd), unix.F_SETPIPE_SZ, usualSize); err == nil {
		s.gone()
	}
}

// gone gives back what widen took.
func (s *stream) gone() {
	if s.wide {
		s.wide = false
		s.stores.wide.Add(-1)
	}
}
