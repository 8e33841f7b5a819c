package container

import (
	"os"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// allowed are the most files and processes that a container can have where
// nobody may raise limits, as in a container or a virtual machine without
// CAP_SYS_RESOURCE. It is nil where root may.
func allowed() []*container.Ulimit {
	raises, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0)
	if err != nil || raises != 0 {
		return nil
	}
	var limits []*container.Ulimit
	most := func(name string, resource int, other int64) {
		var own unix.Rlimit
		if err := unix.Getrlimit(resource, &own); err == nil {
			n := int64(min(own.Max, uint64(other)))
			limits = append(limits, &container.Ulimit{Name: name, Soft: n, Hard: n})
		}
	}
	const usual = 1 << 20 // that Podman asks for
	most("nofile", unix.RLIMIT_NOFILE, usual)
	most("nproc", unix.RLIMIT_NPROC, min(usual, pidMax())) // Podman lowers its own to that
	return limits
}

func pidMax() int64 {
	text, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return 1 << 15
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 1 << 15
	}
	return n
}
