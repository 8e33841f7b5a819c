package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// NotifySocket is what NOTIFY_SOCKET names. Each run needs one of its own:
// what a process of an earlier run sent last could not be told from what the
// present one says.
type NotifySocket struct {
	conn    *net.UnixConn
	path    string
	discard sync.Once
}

// ListenNotify opens a socket at path, which must not exist, for the user
// alone. A path that is too long for a socket is an error of the system.
func ListenNotify(path string) (*NotifySocket, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	s := &NotifySocket{conn: conn, path: path}
	raw, err := conn.SyscallConn()
	if err == nil {
		var failure error
		err = raw.Control(func(fd uintptr) {
			failure = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		})
		err = errors.Join(err, failure, os.Chmod(path, 0o600))
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("notify socket %s: %w", path, err)
	}
	return s, nil
}

// Path is where the socket is: the value of NOTIFY_SOCKET.
func (s *NotifySocket) Path() string { return s.path }

// Close closes the socket and removes it.
func (s *NotifySocket) Close() error {
	err := s.conn.Close()
	if e := os.Remove(s.path); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// Discard begins to take in what is said without hearing it, until Close: a
// sender would wait for room.
func (s *NotifySocket) Discard() {
	s.discard.Do(func() {
		go func() { _ = s.receive(context.Background(), func(message) {}) }() // it ends with Close
	})
}

// receive calls each for every message until ctx ends.
func (s *NotifySocket) receive(ctx context.Context, each func(message)) error {
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	const maxFiles = 253 // SCM_MAX_FD
	buf := make([]byte, 8<<10)
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxFiles))
	for {
		n, cn, _, _, err := s.conn.ReadMsgUnix(buf, control)
		if ctx.Err() != nil {
			closeFiles(control[:max(cn, 0)])
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		m, ok := sender(control[:cn])
		if ok {
			m.text = string(buf[:n])
			each(m)
		}
		// With BARRIER=1 comes a pipe whose closing says that everything sent
		// before has been taken in. Other files are not wanted either.
		closeFiles(control[:cn])
	}
}

// sender reads who sent a message.
func sender(control []byte) (m message, ok bool) {
	list, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return m, false
	}
	for i := range list {
		cred, err := unix.ParseUnixCredentials(&list[i])
		if err != nil {
			continue
		}
		return message{pid: int(cred.Pid), uid: int(cred.Uid), self: os.Getuid()}, true
	}
	return m, false
}

func closeFiles(control []byte) {
	list, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
	}
	// The name in parentheses may contain anything.
	state := bytes.TrimSpace(stat[bytes.LastIndexByte(stat, ')')+1:])
	return len(state) == 0 || !bytes.ContainsRune([]byte("ZX"), rune(state[0]))
}
