package sockets

import (
	"errors"
	"fmt"
	"net/netip"
	"os/user"
	"strconv"
)

// ErrUnsupported is returned where the system does not tell.
var ErrUnsupported = errors.New("this system does not tell which sockets are open")

// Socket is a TCP socket that is listened on.
type Socket struct {
	Addr  netip.AddrPort // unspecified for all addresses; IPv4-mapped addresses are given as IPv4
	Inode uint64         // its number, as in /proc/PID/fd
	UID   int            // of who opened it
}

// Holder is who listens on a port.
type Holder struct {
	PID     int    // 0 when the process is not ours to see
	Command string // its name; empty like PID
	UID     int
}

// String names the holder for an error message: "nginx (process 4711)", or "a
// process of user www" when that is all there is to know.
func (h Holder) String() string {
	switch {
	case h.PID != 0 && h.Command != "":
		return fmt.Sprintf("%s (process %d)", h.Command, h.PID)
	case h.PID != 0:
		return fmt.Sprintf("process %d", h.PID)
	}
	name := strconv.Itoa(h.UID)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return "a process of user " + name
}
