package daemon

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// calm is how long nothing more has to happen to the place until it is looked
// at: whoever removes a directory is not disturbed in the middle of it.
const calm = 100 * time.Millisecond

// watchPaths tells when one of paths is removed, moved or changed. watch looks
// at what is there now. Where the system has no more watches to give, nothing is
// told: then a change finds out.
func watchPaths(ctx context.Context, paths ...string) (events <-chan struct{}, watch func()) {
	none := make(chan struct{})
	close(none)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return none, func() {}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	watch = func() {
		for _, path := range paths {
			// One that is gone again was told of by another.
			_, _ = unix.InotifyAddWatch(fd, path, unix.IN_ATTRIB|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF)
		}
	}
	watch()
	context.AfterFunc(ctx, func() { f.Close() })
	told := make(chan struct{})
	go func() {
		defer close(told)
		for settled(f) {
			select {
			case told <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return told, watch
}

// settled waits for an event, and then until none has come for a while. It is
// false when f was closed.
func settled(f *os.File) bool {
	buf := make([]byte, 4096)
	_, err := f.Read(buf)
	if err != nil {
		return false
	}
	for err == nil {
		if err = f.SetReadDeadline(time.Now().Add(calm)); err == nil {
			_, err = f.Read(buf)
		}
	}
	return f.SetReadDeadline(time.Time{}) == nil
}
