package builtin

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/pid1"
)

// vanishing tells when somebody else removes the directories of containers, or
// part of them. Without inotify it tells nothing.
type vanishing struct {
	mu   sync.Mutex
	file *os.File // nil while nothing is watched
	gone map[string]func()
}

// watch calls gone, in a goroutine, when the directory is not whole any more,
// until stop is called.
func (v *vanishing) watch(dir string, gone func()) (stop func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone == nil {
		v.gone = map[string]func(){}
	}
	if v.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return func() {}
		}
		v.file = os.NewFile(uintptr(fd), "inotify")
		go v.listen(v.file)
	}
	watch := -1
	if raw, err := v.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			watch, _ = unix.InotifyAddWatch(int(fd), dir, unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_ONLYDIR)
		})
	}
	v.gone[dir] = gone
	go v.look() // it may have happened already
	return func() { v.forget(dir, watch) }
}

func (v *vanishing) forget(dir string, watch int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.gone, dir)
	if v.file == nil {
		return
	}
	if raw, err := v.file.SyscallConn(); err == nil && watch >= 0 {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(watch)) })
	}
	if len(v.gone) == 0 {
		v.file.Close()
		v.file = nil
	}
}

// listen looks after each event, whatever it is about.
func (v *vanishing) listen(file *os.File) {
	events := make([]byte, 4<<10)
	for {
		if _, err := file.Read(events); err != nil {
			return
		}
		v.look()
	}
}

func (v *vanishing) look() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for dir, gone := range v.gone {
		if !pid1.Whole(dir) {
			delete(v.gone, dir)
			go gone()
		}
	}
}
