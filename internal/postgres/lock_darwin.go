package postgres

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const zombie = 5 // SZOMB of sys/proc.h

// holderOf goes by the program's name and by its start, which a server writes
// into the lock file a moment later.
func holderOf(pid int, _ string, started time.Time) (holder, error) {
	p, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.ESRCH) || err == nil && int(p.Proc.P_pid) != pid {
		return gone, nil
	}
	if err != nil {
		return gone, err
	}
	name := unix.ByteSliceToString(p.Proc.P_comm[:])
	late := started.Sub(time.Unix(p.Proc.P_starttime.Unix()))
	if p.Proc.P_stat == zombie || (name != "postgres" && name != "postmaster") || late < -5*time.Second || late > 5*time.Second {
		return other, nil
	}
	return server, nil
}
