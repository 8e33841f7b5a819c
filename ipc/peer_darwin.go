package ipc

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peer is the user and the process at the other end: who called connect or,
// seen from a client, who called listen.
func peer(conn *net.UnixConn) (uid, pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Xucred
	var credErr, pidErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		pid, pidErr = unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	}); err != nil {
		return 0, 0, err
	}
	if credErr != nil {
		return 0, 0, fmt.Errorf("peer credentials: %w", credErr)
	}
	if pidErr != nil {
		pid = 0
	}
	return int(cred.Uid), pid, nil
}

// closedBothWays reports whether the peer has closed the socket, and not only
// its side of the conversation: a half-closed socket still has a peer.
func closedBothWays(fd int) bool {
	_, err := unix.Getpeername(fd)
	return err != nil
}
