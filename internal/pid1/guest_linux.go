package pid1

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// networkName is a link to the container's network namespace, or to hostNetwork.
// It is made when the outer process waits for the inner one.
const (
	networkName = "network"
	hostNetwork = "host"
)

// Offered returns once the outer process in dir waits for the inner one of a
// container that an engine makes, or with the *Error that keeps it from that.
// network is the path of the namespace that the container is to have; empty is the
// host's.
func Offered(ctx context.Context, dir string) (network string, err error) {
	err = awaited(ctx, dir, func() (bool, error) {
		if _, err := readStatus(dir); err != nil {
			return false, err
		}
		to, err := os.Readlink(filepath.Join(dir, networkName))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if to != hostNetwork {
			network = to
		}
		return true, err
	})
	return network, err
}

// host is the outer process of a container that an engine makes: it has the
// network made and served, and waits for the inner process.
func (o *outer) host(signals chan os.Signal) (int, *Error) {
	if err := o.spec.prepare(); err != nil {
		return 0, asError("directory "+o.spec.Dir, err)
	}
	namespace := hostNetwork
	if o.attach() {
		if err := o.open(); err != nil {
			return 0, err
		}
		defer o.gateway.Close()
		path, link, err := separate(o.network)
		if err != nil {
			return 0, asError("network of the container", err)
		}
		namespace = path
		o.serve(link)
	}
	control, err := listenIn(o.spec.Dir, controlName)
	if err != nil {
		return 0, fail(Failed, "control socket in "+o.spec.Dir, err)
	}
	door, err := listenIn(o.spec.Dir, joinName)
	if err != nil {
		return 0, fail(Failed, "socket in "+o.spec.Dir, errors.Join(err, control.Close()))
	}
	if err := os.Symlink(namespace, filepath.Join(o.spec.Dir, networkName)); err != nil {
		return 0, fail(Failed, "directory "+o.spec.Dir, errors.Join(err, control.Close(), door.Close()))
	}
	ring(o.spec.Dir)
	end, e := o.welcome(door, control, signals)
	if e != nil {
		return 0, e
	}
	defer o.conn.Close()
	o.follow(signals, end)
	switch {
	case o.ended:
		return o.code, nil
	case o.failure != nil:
		return 0, o.failure
	case o.started: // it is told of every other end
		return 128 + int(unix.SIGKILL), nil
	}
	return 0, silent("the engine killed it, or nobody knows")
}

// separate makes a network namespace and returns what it is found by, as long as
// this process lives.
func separate(n Network) (path string, link *os.File, err error) {
	made := make(chan struct{})
	go func() {
		goruntime.LockOSThread() // for ever: the namespace is this thread's
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = forbidden("network namespace", err)
		} else {
			link, err = n.Attach()
		}
		path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		failed := err != nil
		close(made)
		if !failed {
			select {}
		}
	}()
	<-made
	return path, link, err
}

// welcome waits for the inner process and gives it all that it needs. end
// returns once nothing of the container is left.
func (o *outer) welcome(door, control *net.UnixListener, signals chan os.Signal) (end func() error, e *Error) {
	defer control.Close()
	defer door.Close()
	came := make(chan *net.UnixConn, 1)
	go func() {
		defer close(came)
		if conn, err := door.AcceptUnix(); err == nil {
			came <- conn
		}
	}()
	for {
		select {
		case conn := <-came:
			if conn == nil {
				return nil, &Error{Kind: Failed, What: "socket in " + o.spec.Dir, Why: "cannot be listened on"}
			}
			return o.admit(connection{conn}, control)
		case s := <-signals:
			if sig, ok := s.(syscall.Signal); ok && handed(sig) {
				return nil, &Error{Kind: Failed, What: "container", Why: "it was to end before it began"}
			}
		case err := <-o.served:
			return nil, asError("network of the container", err)
		}
	}
}

func (o *outer) admit(conn connection, control *net.UnixListener) (end func() error, e *Error) {
	pidfd, err := peer(conn)
	if err != nil {
		return nil, fail(Failed, "first process of the container", errors.Join(err, conn.Close()))
	}
	listener, err := control.File()
	if err != nil {
		return nil, fail(Failed, "control socket", errors.Join(err, conn.Close()))
	}
	defer listener.Close()
	o.conn = conn
	// Where it cannot be told any more it has ended, and that is told later.
	_ = conn.send(hello{Spec: o.spec, Env: joinNUL(o.environ())}, os.Stdin, os.Stdout, os.Stderr, listener)
	return func() error { return awaitEnd(pidfd) }, nil
}

// peer returns a pidfd of the process at the other end.
func peer(conn connection) (pidfd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if pidfd, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); failed == nil {
			return
		}
		// Before Linux 6.5. It waits for us, so its number is its own.
		var who *unix.Ucred
		if who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed == nil {
			pidfd, failed = unix.PidfdOpen(int(who.Pid), 0)
		}
	})
	return pidfd, errors.Join(err, failed)
}

// awaitEnd returns once a process has ended. The first one of a container ends
// last.
func awaitEnd(pidfd int) error {
	defer unix.Close(pidfd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// join is Main of the inner process in a container that an engine has made.
func join() int {
	signals := hearSignals()
	if os.Getpid() != 1 {
		return notForPeople()
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: guestSocket})
	if err != nil {
		return ExitFailed // whoever would be told is gone
	}
	outer := connection{conn}
	var h hello
	files, err := outer.receive(&h)
	if err != nil || len(files) != 4 {
		return ExitFailed
	}
	for i, f := range files[:3] {
		err = errors.Join(err, unix.Dup3(int(f.Fd()), i, 0), f.Close())
	}
	err = errors.Join(err, unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC))
	if err != nil {
		_ = outer.send(report{Error: asError("container", err)})
		return ExitFailed
	}
	return newInner(outer, h, files[3]).run(h, nil, signals)
}
