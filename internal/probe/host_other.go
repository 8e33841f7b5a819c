//go:build !linux

package probe

import (
	"time"

	"golang.org/x/sys/unix"
)

// awaitEnd returns when a child has ended, and leaves it to be reaped: its
// group then has no live member.
func awaitEnd(pid int) {
	for unix.Kill(-pid, 0) == nil {
		time.Sleep(5 * time.Millisecond)
	}
}
