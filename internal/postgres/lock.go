package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/locald/locald/runtime"
)

// holder says what the process is whose number a lock file holds.
type holder int

const (
	gone   holder = iota // no such process
	other                // a process, but no server of the data directory; or one that has ended and is not reaped
	server               // a server of the data directory
)

// unlock makes sure that the lock file of an ended server does not keep the
// next from starting. Postgres itself overlooks one whose process is gone, and
// then makes sure that no process is left that uses the same shared memory; so
// that file stays. But it refuses to start when the number has gone to any
// other process of the same user, as happens after a restart of the machine:
// then the file is removed. A server that lives is an error.
func unlock(data string) error {
	file := filepath.Join(data, "postmaster.pid")
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := append(strings.Split(string(content), "\n"), "", "", "")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil { // cut off while it was written, by a full disk for one
		return os.Remove(file)
	}
	if pid < 0 { // a single-user server
		pid = -pid
	}
	seconds, _ := strconv.ParseInt(strings.TrimSpace(lines[2]), 10, 64)
	found, err := holderOf(pid, data, time.Unix(seconds, 0))
	switch {
	case err != nil:
		return err
	case found == other:
		return os.Remove(file)
	case found == server:
		return &runtime.Fault{
			Code: "stop_failed",
			Hint: fmt.Sprintf("kill -INT %d", pid),
			Err:  fmt.Errorf("data directory %s is in use by the Postgres server with process number %d", data, pid),
		}
	}
	return nil
}
