package logs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// A file has come to a directory that is watched.
	come = unix.IN_CREATE | unix.IN_MOVED_TO
	// A file is written to. It is told once: each telling is the work of the
	// process that writes, and costs it as much for a follower that is stopped.
	writing = unix.IN_MODIFY | unix.IN_ONESHOT
	// What says that the directory is no longer there, or is another one. The
	// kernel is silent about a directory whose deleted files are open, so the
	// directory above is watched as well.
	selfGone  = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_IGNORED | unix.IN_UNMOUNT
	childGone = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_CREATE | unix.IN_MOVED_TO

	watchMask = (come | childGone | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF) | unix.IN_ONLYDIR
)

// shared is the process's inotify instance, of which the kernel gives each
// user only a few.
var shared notifier

// notifier hands events of directories out to watches. It holds an inotify
// instance as long as there is a watch.
type notifier struct {
	mu      sync.Mutex
	file    *os.File
	watches map[int32]map[*dirWatch]string // which entry of the directory counts; "" is all
	files   map[int32]map[*dirWatch]bool   // who is to be told that a file is written to
}

// dirWatch wakes one follower when its directory changes.
type dirWatch struct {
	blind  bool // nobody tells; look now and then
	above  bool // the directory is not there, one above it is watched
	woken  chan struct{}
	list   atomic.Bool // a file has come
	moved  atomic.Bool // the directory is another one, or gone
	places []int32     // guarded by the notifier's lock, as is file
	file   int32       // the same for the file that is watched
}

// watch begins to watch dir, or the nearest directory above that exists.
func watch(dir string) *dirWatch {
	w := &dirWatch{woken: make(chan struct{}, 1)}
	w.list.Store(true)
	abs, err := filepath.Abs(dir)
	if err != nil {
		w.blind = true
		return w
	}
	for path := abs; ; {
		err := shared.add(w, path)
		switch {
		case err == nil && path == abs:
			return w
		case err == nil:
			if _, err := os.Lstat(below(path, abs)); err != nil {
				w.above = true
				return w
			}
			shared.remove(w) // it has come in between
			path = abs
		case errors.Is(err, unix.ENOENT) && path != filepath.Dir(path):
			path = filepath.Dir(path)
		default:
			w.blind = true
			return w
		}
	}
}

// below is the directory right under top on the way to path.
func below(top, path string) string {
	for filepath.Dir(path) != top {
		path = filepath.Dir(path)
	}
	return path
}

// wait returns when something may have changed since the last wait, or with the
// error of ctx when that ends.
func (w *dirWatch) wait(ctx context.Context) error {
	if w.blind {
		w.list.Store(true)
		return pause(ctx, pollEvery)
	}
	select {
	case <-w.woken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// arm asks to be woken once somebody writes to the file at path, which is in the
// directory. What was written before is not told.
func (w *dirWatch) arm(path string) {
	if w.blind || w.above {
		return
	}
	if err := shared.arm(w, path); err != nil && !errors.Is(err, unix.ENOENT) {
		w.blind = true
	}
}

// listed reports whether files may have come since it was called last.
func (w *dirWatch) listed() bool { return w.list.Swap(false) }

// stale reports whether another watch must take the place of this one.
func (w *dirWatch) stale() bool { return w.above || w.moved.Load() }

// replaced reports whether the directory is gone or another one, so that none
// of the files in it are those that were seen.
func (w *dirWatch) replaced() bool { return w.moved.Load() }

func (w *dirWatch) close() { shared.remove(w) }

// tell wakes the follower if an event concerns it. entry is what counts of the
// directory that the event is about, name what the event names.
func (w *dirWatch) tell(mask uint32, entry, name string) {
	switch {
	case mask&unix.IN_Q_OVERFLOW != 0:
		// Anything may have happened, but not much may be concluded.
		w.list.Store(true)
	case mask&selfGone != 0:
		w.moved.Store(true)
	case entry != "":
		if entry != name || mask&childGone == 0 {
			return
		}
		w.moved.Store(true)
	case mask&come == 0:
		return
	default:
		w.list.Store(true)
	}
	w.wake()
}

func (w *dirWatch) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// add watches the directory at path for w, and its entry in the one above.
func (n *notifier) add(w *dirWatch, path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return err
		}
		n.file = os.NewFile(uintptr(fd), "inotify")
		n.watches, n.files = map[int32]map[*dirWatch]string{}, map[int32]map[*dirWatch]bool{}
		go n.run(n.file)
	}
	if above := filepath.Dir(path); above != path {
		// Not being allowed to is no reason not to watch the directory itself.
		_ = n.place(w, above, filepath.Base(path))
	}
	err := n.place(w, path, "")
	if err != nil {
		n.forget(w)
	}
	return err
}

func (n *notifier) place(w *dirWatch, path, entry string) error {
	wd, err := n.watch(path, watchMask)
	if err != nil {
		return err
	}
	of := n.watches[wd]
	if of == nil {
		of = map[*dirWatch]string{}
		n.watches[wd] = of
	}
	of[w] = entry
	w.places = append(w.places, wd)
	return nil
}

func (n *notifier) watch(path string, mask uint32) (wd int32, err error) {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var got int
	var failure error
	err = raw.Control(func(fd uintptr) { got, failure = unix.InotifyAddWatch(int(fd), path, mask) })
	return int32(got), errors.Join(err, failure)
}

func (n *notifier) arm(w *dirWatch, path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil || len(w.places) == 0 {
		return nil // it is closed
	}
	wd, err := n.watch(path, writing)
	if err != nil {
		return err
	}
	if w.file != wd {
		n.disarm(w)
	}
	if n.files[wd] == nil {
		n.files[wd] = map[*dirWatch]bool{}
	}
	n.files[wd][w] = true
	w.file = wd
	return nil
}

// disarm takes w out of those who wait for a file.
func (n *notifier) disarm(w *dirWatch) {
	of := n.files[w.file]
	if !of[w] {
		return
	}
	if delete(of, w); len(of) == 0 {
		delete(n.files, w.file)
		n.unwatch(w.file)
	}
}

func (n *notifier) unwatch(wd int32) {
	if raw, err := n.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) })
	}
}

func (n *notifier) remove(w *dirWatch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forget(w)
}

// forget takes w out, and ends what is watched for nobody.
func (n *notifier) forget(w *dirWatch) {
	if n.file != nil {
		n.disarm(w)
	}
	for _, wd := range w.places {
		of, ok := n.watches[wd]
		if _, mine := of[w]; !ok || !mine {
			continue // the directory is gone, or all of that instance
		}
		delete(of, w)
		if len(of) > 0 {
			continue
		}
		delete(n.watches, wd)
		n.unwatch(wd)
	}
	w.places = nil
	if n.file != nil && len(n.watches) == 0 {
		n.file.Close()
		n.file = nil
	}
}

// run hands out the events of one instance until that is closed.
func (n *notifier) run(file *os.File) {
	buf := make([]byte, 16<<10)
	for {
		got, err := file.Read(buf)
		if err != nil {
			return
		}
		n.deliver(file, buf[:got])
	}
}

func (n *notifier) deliver(file *os.File, events []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != file {
		return
	}
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		name := string(bytes.TrimRight(events[unix.SizeofInotifyEvent:size], "\x00"))
		events = events[size:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for _, of := range n.watches {
				tell(of, mask, name)
			}
			continue
		}
		if of, ok := n.files[wd]; ok {
			for w := range of {
				w.wake()
			}
			delete(n.files, wd) // the kernel has done so
			continue
		}
		tell(n.watches[wd], mask, name)
		if mask&unix.IN_IGNORED != 0 {
			delete(n.watches, wd)
		}
	}
}

func tell(watches map[*dirWatch]string, mask uint32, name string) {
	for w, entry := range watches {
		w.tell(mask, entry, name)
	}
}
