package logs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// send hands out a part of a file, which is complete and stays as it is, without
// a copy of ours, and returns how much was taken. It is less than all when out
// takes nothing in this way, or nothing more.
func send(out, from *os.File, offset int64, size int) (sent int) {
	conn, err := out.SyscallConn()
	if err != nil {
		return 0
	}
	_ = conn.Write(func(fd uintptr) (done bool) {
		for sent < size {
			n, err := unix.Sendfile(int(fd), int(from.Fd()), &offset, size-sent)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil || n == 0:
				return true
			default:
				sent += n
			}
		}
		return true
	})
	return sent
}
