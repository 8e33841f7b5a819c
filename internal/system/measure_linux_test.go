package system

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// killIfThere is kill for a process that may end by itself meanwhile.
func killIfThere(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatalf("process %d: %v", pid, err)
	}
	gone(t, fd)
}

// percentile is the value that p of 100 are not above.
func percentile(values []time.Duration, p int) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// spread is a measurement in words.
func spread(values []time.Duration) string {
	const unit = 10 * time.Microsecond
	return fmt.Sprintf("median %v, 99%% %v, most %v of %d", percentile(values, 50).Round(unit),
		percentile(values, 99).Round(unit), percentile(values, 100).Round(unit), len(values))
}
