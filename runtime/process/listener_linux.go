package process

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locald/locald/internal/sockets"
	"github.com/locald/locald/runtime"
)

// Listening returns the ports that processes of the run listen on, in order.
func (in *instance) Listening(ctx context.Context) ([]int, error) {
	found, err := in.listeners(anywhere)
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
// run, in order. What was listened on before the run is not its doing, unless
// somebody passed it on.
func (in *instance) Exposed(ctx context.Context) ([]netip.AddrPort, error) {
	found, err := in.listeners(func(s sockets.Socket) bool {
		return beyondLoopback(s) && in.runtime.listening.after(s, in.began)
	})
	if err != nil {
		return nil, err
	}
	var exposed []netip.AddrPort
	for _, s := range found {
		if !slices.Contains(exposed, s.Addr) {
			exposed = append(exposed, s.Addr)
		}
	}
	slices.SortFunc(exposed, netip.AddrPort.Compare)
	return exposed, ctx.Err()
}

func anywhere(sockets.Socket) bool { return true }

func beyondLoopback(s sockets.Socket) bool { return !s.Addr.Addr().IsLoopback() }

// listeners is those of the sockets that processes of the run listen on; one
// that was inherited comes once for each process. Who has which is looked for in
// every process, so that is done only where there is one that may count.
func (in *instance) listeners(counts func(sockets.Socket) bool) ([]sockets.Socket, error) {
	open, err := in.runtime.listening.now()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runtime.ErrUnavailable, err)
	}
	if !slices.ContainsFunc(open, counts) {
		return nil, nil
	}
	var found []sockets.Socket
	for _, s := range in.held(open) {
		if counts(s) {
			found = append(found, s)
		}
	}
	return found, nil
}

// held is those of the sockets that processes of the run have open. As long as
// no other socket is listened on, that changes only when one is passed on.
func (in *instance) held(open []sockets.Socket) (held []sockets.Socket) {
	in.looking.Lock()
	defer in.looking.Unlock()
	if slices.Equal(open, in.looked.open) && time.Since(in.looked.at) < passedOn {
		return in.looked.held
	}
	byInode := make(map[uint64]sockets.Socket, len(open))
	for _, s := range open {
		byInode[s.Inode] = s
	}
	at := time.Now()
	for _, pid := range in.child.PIDs() {
		for _, inode := range socketsOf(pid) {
			if s, ok := byInode[inode]; ok {
				held = append(held, s)
			}
		}
	}
	in.looked = look{at: at, open: open, held: held}
	return held
}

// passedOn is how late a socket may be noticed that was listened on before one
// of the run's processes got it.
const passedOn = 100 * time.Millisecond

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
