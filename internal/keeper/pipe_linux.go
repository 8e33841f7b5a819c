package keeper

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/logs"
)

// pipes are the two pipes of a run. The write ends block, as a program expects
// of its standard output.
type pipes struct {
	streams [2]*stream
	write   [2]int
}

func (s *stores) pipes(dir string, run int) (*pipes, error) {
	p := &pipes{}
	for i, name := range []logs.Stream{logs.Stdout, logs.Stderr} {
		var ends [2]int
		err := unix.Pipe2(ends[:], unix.O_CLOEXEC)
		if err == nil {
			err = unix.SetNonblock(ends[0], true)
		}
		if err != nil {
			if i == 1 {
				p.streams[0].discard()
				_ = unix.Close(p.write[0])
			}
			return nil, os.NewSyscallError("pipe2", err)
		}
		p.streams[i] = s.stream(os.NewFile(uintptr(ends[0]), string(name)), dir, run, name)
		p.write[i] = ends[1]
	}
	return p, nil
}

func (p *pipes) closeWrite() {
	for _, fd := range p.write {
		_ = unix.Close(fd)
	}
}

// capacity is how many bytes a pipe can hold.
func capacity(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return 1 << 20
	}
	return n
}
