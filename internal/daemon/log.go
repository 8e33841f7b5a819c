package daemon

import (
	"log/slog"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// fullLog is how long the daemon's log may get. The one before is kept.
const fullLog = 8 << 20

// logger writes to standard error: for people when one watches, else into the
// log file, which standard error is then.
func logger(o Options) *slog.Logger {
	if o.Foreground {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewJSONHandler(&rotated{path: o.Places.Log, full: fullLog, std: []*os.File{os.Stderr, os.Stdout}}, nil))
}

// rotated writes to a standard stream while that is a file of ours: when it is
// full, it is renamed and a new one takes its place, also for what else of this
// process writes there.
type rotated struct {
	path string
	full int64
	std  []*os.File // the first is written to

	mu sync.Mutex
}

// Write implements io.Writer.
func (r *rotated) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	return r.std[0].Write(b)
}

// turn begins a new file when the one in use is full. When it cannot, the one
// in use goes on.
func (r *rotated) turn() {
	used, err := r.std[0].Stat()
	if err != nil || !used.Mode().IsRegular() || used.Size() < r.full {
		return
	}
	if there, err := os.Lstat(r.path); err != nil || !os.SameFile(used, there) {
		return // somebody else has moved it
	}
	if err := os.Rename(r.path, r.path+".1"); err != nil {
		return
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	for _, std := range r.std {
		if now, err := std.Stat(); err == nil && os.SameFile(now, used) {
			_ = unix.Dup2(int(f.Fd()), int(std.Fd()))
		}
	}
}
