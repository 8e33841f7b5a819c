package ports

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/sockets"
)

// TakenError says that a port cannot be used.
type TakenError struct {
	Port   int
	Holder string // "nginx (process 4711)"; empty when nobody is known
	Err    error  // what the system said
}

func (e *TakenError) Error() string {
	switch {
	case e.Holder != "":
		return fmt.Sprintf("port %d is taken by %s", e.Port, e.Holder)
	case errors.Is(e.Err, unix.EADDRINUSE):
		return "port " + strconv.Itoa(e.Port) + " is taken"
	}
	return fmt.Sprintf("port %d cannot be used: %v", e.Port, e.Err)
}

func (e *TakenError) Unwrap() error { return e.Err }

// Free reports whether a service could listen on port at this moment, on
// 127.0.0.1 as well as on all addresses.
func Free(port int) bool { return bindable(port) == nil }

// Taken returns nil when port is Free, and otherwise who has it.
func Taken(port int) *TakenError {
	err := bindable(port)
	if err == nil {
		return nil
	}
	taken := &TakenError{Port: port, Err: err}
	if h, ok := sockets.HolderOf(port); ok && errors.Is(err, unix.EADDRINUSE) {
		taken.Holder = h.String()
	}
	return taken
}

// bindable binds port for a moment, without listening, so that nobody can be
// connected to it.
func bindable(port int) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("there is no port %d", port)
	}
	for _, addr := range []unix.Sockaddr{
		&unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}},
		&unix.SockaddrInet4{Port: port},
		&unix.SockaddrInet6{Port: port},
	} {
		if err := bind(addr); err != nil {
			return err
		}
	}
	return nil
}

func bind(addr unix.Sockaddr) error {
	family := unix.AF_INET
	_, six := addr.(*unix.SockaddrInet6)
	if six {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		if six {
			return nil // there is no IPv6 to be in the way
		}
		return err
	}
	defer unix.Close(fd)
	unix.CloseOnExec(fd)
	// Servers set it, so that connections of yesterday are no obstacle.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if six {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	err = unix.Bind(fd, addr)
	if six && errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil // IPv6 is switched off
	}
	return err
}
