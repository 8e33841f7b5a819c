package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/runtime"
)

// listen opens the socket of the daemon that holds the lock. A stale socket of
// ours is replaced; nothing else is ever removed.
func listen(p state.Places) (*net.UnixListener, string, error) {
	path := p.Socket
	if !p.Fixed {
		if alive(path) { // the daemon of another state directory of this user
			path = state.Short(p.Dir + "/locald.sock")
		}
	}
	if err := clear(path); err != nil {
		return nil, "", err
	}
	l, err := bind(path)
	if err != nil {
		return nil, "", &runtime.Fault{Code: "daemon_unavailable", Err: fmt.Errorf("socket %s: %w", path, err)}
	}
	return l, path, nil
}

// clear makes room for a socket at path.
func clear(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return held(path, err.Error(), "")
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case ok && int(stat.Uid) != os.Getuid():
		return held(path, "belongs to uid "+strconv.Itoa(int(stat.Uid)), "")
	case info.IsDir():
		return held(path, "is a directory", "mv "+path+" "+path+".old")
	case info.Mode()&fs.ModeSymlink != 0:
		return held(path, "is a symbolic link", "rm "+path)
	case info.Mode()&fs.ModeSocket == 0:
		return held(path, "is a file", "mv "+path+" "+path+".old")
	case alive(path):
		return held(path, "is where another daemon listens", "")
	}
	return os.Remove(path)
}

func held(path, what, hint string) error {
	return &runtime.Fault{Code: "daemon_unavailable", Hint: hint, Err: fmt.Errorf("socket %s: the path %s", path, what)}
}

// alive reports whether somebody accepts connections at path.
func alive(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// datagram reports whether somebody reads datagrams at path.
func datagram(path string) bool {
	conn, err := net.DialTimeout("unixgram", path, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// bind listens at path with a socket that only this user can connect to from
// its first moment.
func bind(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if failed := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); failed != nil {
			return failed
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	// Where the mode of a socket is not taken over by bind, the directory or
	// this narrows it.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l.(*net.UnixListener), nil
}
