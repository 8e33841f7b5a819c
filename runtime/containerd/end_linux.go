package containerd

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// closeAtEnd closes a channel when a process of this machine has ended. It is no
// child of ours. The first one of a container ends after all others in it.
func closeAtEnd(pid int, gone chan<- struct{}) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("process %d of a container: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("process %d of a container: %w", pid, err)
	}
	go func() {
		defer f.Close()
		defer close(gone)
		_ = raw.Read(func(fd uintptr) bool { // it can be read once the process has ended
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
	}()
	return nil
}

// signalOf is the signal of a name, SIGTERM without one.
func signalOf(name string) syscall.Signal {
	if sig := unix.SignalNum(name); sig != 0 {
		return sig
	}
	return unix.SIGTERM
}
