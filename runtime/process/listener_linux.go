package process

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/locald/locald/internal/sockets"
	"github.com/locald/locald/runtime"
)

// Listening returns the ports that processes of the run listen on, in order.
func (in *instance) Listening(ctx context.Context) ([]int, error) {
	open, err := sockets.Listening()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runtime.ErrUnavailable, err)
	}
	if len(open) == 0 {
		return nil, ctx.Err()
	}
	ports := make(map[uint64]int, len(open))
	for _, s := range open {
		ports[s.Inode] = int(s.Addr.Port())
	}
	var listening []int
	for _, pid := range in.child.PIDs() {
		for _, inode := range socketsOf(pid) {
			if port, ok := ports[inode]; ok && !slices.Contains(listening, port) {
				listening = append(listening, port)
			}
		}
	}
	slices.Sort(listening)
	return listening, ctx.Err()
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
