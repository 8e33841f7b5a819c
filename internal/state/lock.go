package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/locald/locald/runtime"
)

// ErrLocked says that another daemon serves the state directory.
var ErrLocked = errors.New("another daemon serves this state directory")

// Lock makes this process the one daemon of the state directory until it ends
// or Unlock is called. It is taken before the socket is touched: the lock says
// who is the daemon, the socket merely says where.
func Lock(p Places) (unlock func(), err error) {
	path := filepath.Join(p.Dir, "lock")
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, denied(p.Dir, err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, ErrLocked
			}
			return nil, &runtime.Fault{Code: "internal", Err: fmt.Errorf("lock %s: %w", path, err)}
		}
		if same(f, path) {
			_ = f.Truncate(0)
			_, _ = fmt.Fprintf(f, "%d\n", os.Getpid()) // for people; the lock itself is what counts
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close() // it was deleted under us: the lock of another file says nothing
	}
}

func same(f *os.File, path string) bool {
	held, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(held, there)
}
