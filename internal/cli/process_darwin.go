package cli

import (
	"context"
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one process, watched by a kernel queue so that its end is not
// missed.
type process struct{ pid, queue int }

func watchProcess(pid int) (*process, error) {
	queue, err := unix.Kqueue()
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(queue)
	change := unix.Kevent_t{Ident: uint64(pid), Filter: unix.EVFILT_PROC, Flags: unix.EV_ADD, Fflags: unix.NOTE_EXIT}
	if _, err := unix.Kevent(queue, []unix.Kevent_t{change}, nil, nil); err != nil {
		_ = unix.Close(queue)
		return nil, err
	}
	return &process{pid: pid, queue: queue}, nil
}

// signal sends a signal, unless the process has ended since it was watched.
func (p *process) signal(sig syscall.Signal) error {
	if ended, err := p.ended(0); err != nil || ended {
		return err
	}
	return unix.Kill(p.pid, sig)
}

// wait returns when the process has ended. It needs not be a child of ours.
func (p *process) wait(ctx context.Context) error {
	for {
		if ended, err := p.ended(100 * time.Millisecond); err != nil || ended {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (p *process) ended(patience time.Duration) (bool, error) {
	timeout := unix.NsecToTimespec(int64(patience))
	n, err := unix.Kevent(p.queue, nil, make([]unix.Kevent_t, 1), &timeout)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, err
	}
	return n > 0, nil
}

func (p *process) close() { _ = unix.Close(p.queue) }
