package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/locald/locald/runtime"
)

// ErrLocked says that another daemon serves the state directory.
var ErrLocked = errors.New("another daemon serves this state directory")

// Held is the lock of a state directory: whoever has it is the one daemon
// there. Its methods may be called concurrently.
type Held struct {
	path string

	name *os.File // what is ours whatever becomes of the files; nil where it cannot be had

	mu   sync.Mutex
	file *os.File
	dir  fs.FileInfo
}

// Lock makes this process the one daemon of the state directory until it ends
// or calls Release. It is taken before the socket is touched: the lock says who
// is the daemon, the socket merely says where. When the lock's file is not
// there, that may be because somebody removed it under a daemon, which then is
// still the one: the error is ErrLocked once it can be found again.
func Lock(p Places) (*Held, error) {
	h := &Held{path: filepath.Join(p.Dir, "lock")}
	_, err := os.Lstat(h.path)
	created := errors.Is(err, fs.ErrNotExist)
	// The name comes before the lock, and is given up before it: whoever gets the
	// lock can have it.
	var taken bool
	h.name, taken = claim(p.Dir)
	if err := h.take(); err != nil {
		_ = h.name.Close() // nil is none
		return nil, err
	}
	if !created || !taken {
		return h, nil
	}
	if pid := holder(p.Dir); pid != 0 {
		h.Release()
		return nil, await(p, pid)
	}
	return h, nil
}

// comesBack is how long a daemon whose lock was removed has to see it.
const comesBack = 3 * time.Second

// await waits until the daemon whose lock was removed has taken its place
// again.
func await(p Places, pid int) error {
	for deadline := time.Now().Add(comesBack); time.Now().Before(deadline); {
		var d Daemon
		if Read(filepath.Join(p.Dir, daemonFile), &d) == nil && d.PID == pid {
			return ErrLocked
		}
		<-time.After(10 * time.Millisecond)
	}
	return &runtime.Fault{
		Code: "daemon_unavailable", Hint: fmt.Sprintf("kill %d", pid),
		Err: fmt.Errorf("process %d is the daemon of %s, which was removed while it runs", pid, p.Dir),
	}
}

// take opens and locks the file, and makes it what this one holds.
func (h *Held) take() error {
	dir := filepath.Dir(h.path)
	for {
		f, err := os.OpenFile(h.path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return denied(dir, err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return ErrLocked
			}
			return &runtime.Fault{Code: "internal", Err: fmt.Errorf("lock %s: %w", h.path, err)}
		}
		info, err := os.Lstat(dir)
		if err != nil || !same(f, h.path) {
			_ = f.Close() // it was deleted under us: the lock of another file says nothing
			if errors.Is(err, fs.ErrNotExist) {
				return denied(dir, err)
			}
			continue
		}
		_ = f.Truncate(0)
		_, _ = fmt.Fprintf(f, "%d\n%s\n", os.Getpid(), dir) // for people, and for holder; the lock itself is what counts
		h.mu.Lock()
		old := h.file
		h.file, h.dir = f, info
		h.mu.Unlock()
		if old != nil {
			_ = old.Close()
		}
		return nil
	}
}

// Intact reports whether the lock, and the directory, are where they were
// taken.
func (h *Held) Intact() (lock, dir bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	there, err := os.Lstat(filepath.Dir(h.path))
	return same(h.file, h.path), err == nil && os.SameFile(there, h.dir)
}

// Retake takes the lock of the file that is there by now, or of a new one. A
// daemon that starts may look at it for a moment; one that keeps it is ErrLocked.
func (h *Held) Retake() error {
	for deadline := time.Now().Add(comesBack); ; {
		err := h.take()
		if !errors.Is(err, ErrLocked) || time.Now().After(deadline) {
			return err
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Release lets others be the daemon.
func (h *Held) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.name.Close() // nil is none
	_ = h.file.Close()
}

func same(f *os.File, path string) bool {
	held, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(held, there)
}
