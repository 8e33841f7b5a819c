package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// holderOf goes by the program's name and by its working directory, which a
// server makes its data directory.
func holderOf(pid int, data string, _ time.Time) (holder, error) {
	proc := fmt.Sprintf("/proc/%d", pid)
	stat, err := os.ReadFile(proc + "/stat")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return gone, nil
	}
	if err != nil {
		return gone, err
	}
	// "pid (name) state …"; the name may hold parentheses.
	open, shut := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || shut < open || shut+2 >= len(stat) {
		return gone, fmt.Errorf("%s/stat is not in the known form", proc)
	}
	name, state := string(stat[open+1:shut]), stat[shut+2]
	if state == 'Z' || state == 'X' || (name != "postgres" && name != "postmaster") {
		return other, nil
	}
	want, err := filepath.EvalSymlinks(data)
	if err != nil {
		return gone, err
	}
	if dir, err := os.Readlink(proc + "/cwd"); err == nil && dir != want {
		return other, nil
	}
	return server, nil
}
