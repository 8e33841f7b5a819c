package state

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

func ownerOf(path string) (int, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s: no owner is known", path)
	}
	return int(stat.Uid), nil
}

// full reports whether there is no room to write, for whatever reason.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
