package process

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/locald/locald/internal/sockets"
	"github.com/locald/locald/runtime"
)

// Listening returns the ports that processes of the run listen on, in order.
func (in *instance) Listening(ctx context.Context) ([]int, error) {
	found, err := in.listeners()
	if err != nil {
		return nil, err
	}
	var listening []int
	for _, s := range found {
		if port := int(s.Addr.Port()); !slices.Contains(listening, port) {
			listening = append(listening, port)
		}
	}
	slices.Sort(listening)
	return listening, ctx.Err()
}

// Exposed returns the addresses on which other machines reach processes of the
// run, in order.
func (in *instance) Exposed(ctx context.Context) ([]netip.AddrPort, error) {
	found, err := in.listeners()
	if err != nil {
		return nil, err
	}
	var exposed []netip.AddrPort
	for _, s := range found {
		if !s.Addr.Addr().IsLoopback() && !slices.Contains(exposed, s.Addr) {
			exposed = append(exposed, s.Addr)
		}
	}
	slices.SortFunc(exposed, netip.AddrPort.Compare)
	return exposed, ctx.Err()
}

// listeners is the sockets that processes of the run listen on; one that was
// inherited comes once for each process.
func (in *instance) listeners() ([]sockets.Socket, error) {
	open, err := sockets.Listening()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runtime.ErrUnavailable, err)
	}
	if len(open) == 0 {
		return nil, nil
	}
	byInode := make(map[uint64]sockets.Socket, len(open))
	for _, s := range open {
		byInode[s.Inode] = s
	}
	var found []sockets.Socket
	for _, pid := range in.child.PIDs() {
		for _, inode := range socketsOf(pid) {
			if s, ok := byInode[inode]; ok {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

// socketsOf returns the numbers of the sockets that a process has open.
func socketsOf(pid int) (inodes []uint64) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	f, err := os.Open(dir)
	if err != nil {
		return nil // it has ended, or is not ours to look into
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		target, err := os.Readlink(dir + "/" + name)
		if err != nil {
			continue
		}
		number, ok := strings.CutPrefix(target, "socket:[")
		if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64); ok && err == nil {
			inodes = append(inodes, inode)
		}
	}
	return inodes
}

// Owns reports whether the process carries the run's mark, or descends from one
// of its processes.
func (in *instance) Owns(pid int) bool {
	return pid == in.child.PID() || in.child.Mark().Holds(pid) || slices.Contains(in.child.PIDs(), pid)
}
