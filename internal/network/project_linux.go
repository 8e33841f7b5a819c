package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What one gateway asks another is 'L', or 'D' for datagrams, the version, and a
// port in network order. The answer is one byte, an outcome. After connected,
// bytes are passed, or frames.
const (
	requestMark    = 'L'
	datagramMark   = 'D'
	requestVersion = 1
	requestLimit   = 2 * time.Second

	socketSuffix = ".sock"
	maxName      = 200
)

// isName says whether a name can be a service's. What cannot be one does not
// become part of a path.
func isName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return name != "" && len(name) <= maxName
}

// socketPath is the path of a service's socket. By way of the descriptor the
// directory may have a longer name than the address of a socket holds.
func socketPath(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name + socketSuffix
}

// openProject opens the directory of the project's sockets.
func openProject(path string) (*os.File, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(dir.Fd()), &st)
	if err == nil && (int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0) {
		err = fmt.Errorf("%s belongs to user %d and has mode %#o: it must be your own and closed to others: chmod 700 %s", path, st.Uid, st.Mode&0o777, path)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// listenProject listens on the socket of a service. One that nobody listens on
// any more is replaced. The lock keeps two from replacing the same.
func listenProject(dir *os.File, name string) (*net.UnixListener, error) {
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	defer func() { _ = unix.Flock(int(dir.Fd()), unix.LOCK_UN) }()
	path := socketPath(dir, name)
	visible := dir.Name() + "/" + name + socketSuffix
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
		return nil, &ServedError{visible}
	case errors.Is(err, syscall.EAGAIN): // its queue is full
		return nil, &ServedError{visible}
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("%s: %w", visible, unwrapPath(err))
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", visible, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", visible, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("%s: %w", visible, unwrapPath(err))
	}
	return l, nil
}

// unwrapPath leaves out a path that nobody knows.
func unwrapPath(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// sameUser says whether the other end is a process of our user, or of root.
func sameUser(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return err == nil && credErr == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

// serve connects another container to a port of this one.
func (c *connection) serve(from *net.UnixConn) {
	out := service{from}
	if !sameUser(from) {
		out.abort()
		return
	}
	mark, port, err := readRequest(from)
	if err != nil {
		out.abort()
		return
	}
	if mark == datagramMark {
		c.serveFlow(from, port)
		return
	}
	in, err := c.n.gateway.dial(c.n.life, port)
	if _, answerErr := from.Write([]byte{byte(outcomeOf(err))}); err != nil || answerErr != nil {
		out.abort()
		if err == nil {
			in.abort()
		}
		return
	}
	c.pass(in, out)
}

func readRequest(c *net.UnixConn) (mark byte, port uint16, err error) {
	if err := c.SetDeadline(time.Now().Add(requestLimit)); err != nil {
		return 0, 0, err
	}
	var request [4]byte
	if err := readFull(c, request[:]); err != nil {
		return 0, 0, err
	}
	if mark = request[0]; mark != requestMark && mark != datagramMark || request[1] != requestVersion {
		return 0, 0, errors.ErrUnsupported
	}
	return mark, uint16(request[2])<<8 | uint16(request[3]), c.SetDeadline(time.Time{})
}

// dialService connects to a port of another container.
func (n *Network) dialService(ctx context.Context, name string, port uint16) (end, error) {
	c, err := n.ask(ctx, name, requestMark, port)
	if err != nil {
		return nil, err
	}
	return service{c}, nil
}

// ask asks another gateway for a port of its container.
func (n *Network) ask(ctx context.Context, name string, mark byte, port uint16) (*net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socketPath(n.dir, name))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = syscall.EHOSTUNREACH
		}
		return nil, err
	}
	c := conn.(*net.UnixConn)
	outcome := [1]byte{byte(failure)}
	// That a socket lies in a directory of ours does not say who serves it.
	if !sameUser(c) {
		c.Close()
		return nil, syscall.EACCES
	}
	cancelled := context.AfterFunc(ctx, func() { c.Close() })
	if _, err = c.Write([]byte{mark, requestVersion, byte(port >> 8), byte(port)}); err == nil {
		err = readFull(c, outcome[:])
	}
	cancelled()
	if err == nil {
		err = outcomeError(outcome[0])
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
