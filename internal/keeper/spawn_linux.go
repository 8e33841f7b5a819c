package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// The descriptors that a keeper is born with, beside the standard ones.
const (
	connDescriptor = 3
	lockDescriptor = 4
)

// spawn starts the keeper's process, and says on ended that it was reaped, and
// whether all went well until then.
func spawn(o Options) (conn *net.UnixConn, pid int, ended <-chan bool, err error) {
	lock, err := share(o.Dir)
	if err != nil {
		return nil, 0, nil, err
	}
	defer lock.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, nil, os.NewSyscallError("socketpair", err)
	}
	near, far := os.NewFile(uintptr(pair[0]), "keeper"), os.NewFile(uintptr(pair[1]), "daemon")
	defer near.Close()
	defer far.Close()
	if conn, err = unixConn(near); err != nil {
		return nil, 0, nil, err
	}
	command := o.Command
	if len(command) == 0 {
		command = []string{"/proc/self/exe", "keeper"}
	}
	cmd := exec.Command(command[0], command[1:]...)
	if command[0] == "/proc/self/exe" {
		cmd.Args[0] = "locald"
	}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{connDescriptor - 3: far, lockDescriptor - 3: lock}
	if o.Log != nil {
		cmd.Stderr = o.Log
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, 0, nil, errors.Join(err, conn.Close())
	}
	reaped := make(chan bool, 1)
	go func() { reaped <- cmd.Wait() == nil }() // why it did not is in its own log
	return conn, cmd.Process.Pid, reaped, nil
}

func unixConn(f *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor %s: not a Unix socket", f.Name()), conn.Close())
	}
	return u, nil
}
