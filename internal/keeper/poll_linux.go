package keeper

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// poller says when there is something to read from pipes, of each once until
// that is asked for again. Go's own poller would say so for each write, and wake
// a thread of ours for each line that a service writes.
type poller struct {
	fd   int
	file *os.File // the same, which Go's poller watches, so that no thread waits for it

	mu    sync.Mutex
	last  int32
	ready map[int32]func() // by the number that an event carries
}

const pollOnce = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{fd: fd, file: os.NewFile(uintptr(fd), "pipes"), ready: map[int32]func(){}}
	conn, err := p.file.SyscallConn()
	if err != nil {
		_ = p.file.Close()
		return nil, err
	}
	go func() { _ = conn.Read(p.deliver) }()
	return p, nil
}

// add begins to watch a descriptor: ready is called in a goroutine of its own
// once it can be read or has ended.
func (p *poller) add(fd int, ready func()) (id int32, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	p.ready[p.last] = ready
	err = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: pollOnce, Fd: p.last})
	if err != nil {
		delete(p.ready, p.last)
		return 0, os.NewSyscallError("epoll_ctl", err)
	}
	return p.last, nil
}

// again asks for ready to be called once more, also after leave.
func (p *poller) again(fd int, id int32) error {
	e := unix.EpollEvent{Events: pollOnce, Fd: id}
	err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &e)
	if errors.Is(err, unix.ENOENT) {
		err = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &e)
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// leave takes a descriptor out until again: writing to a pipe costs less while
// nobody waits for that.
func (p *poller) leave(fd int) { _ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

func (p *poller) remove(fd int, id int32) {
	p.leave(fd)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ready, id)
}

// deliver hands out what is ready, and reports that it waits for more.
func (p *poller) deliver(fd uintptr) (over bool) {
	var events [64]unix.EpollEvent
	for {
		n, err := unix.EpollWait(int(fd), events[:], 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return true
		case n == 0:
			return false
		}
		p.mu.Lock()
		for _, e := range events[:n] {
			if ready := p.ready[e.Fd]; ready != nil {
				go ready()
			}
		}
		p.mu.Unlock()
	}
}
