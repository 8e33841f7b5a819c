package cli

import (
	"context"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is one process, held so that its number cannot come to mean another.
type process struct{ fd int }

func watchProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	return &process{fd: fd}, nil
}

func (p *process) signal(sig syscall.Signal) error {
	return unix.PidfdSendSignal(p.fd, sig, nil, 0)
}

// wait returns when the process has ended. It needs not be a child of ours.
func (p *process) wait(ctx context.Context) error {
	for {
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 100)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

func (p *process) close() { _ = unix.Close(p.fd) }
