//go:build unix

package config

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// trusted refuses a file that somebody else could have written: what is in it
// will be executed.
func trusted(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return judge(path, info.Mode().Perm(), stat.Uid, stat.Gid, uint32(os.Geteuid()), uint32(os.Getegid()))
}

// judge is trusted without the machine.
func judge(path string, mode fs.FileMode, owner, group, user, primary uint32) error {
	switch {
	case owner != user && owner != 0:
		return &unreadable{
			why:  fmt.Sprintf("belongs to another user (uid %d), and what it says would be executed", owner),
			hint: fmt.Sprintf("chown %d %s", user, shellQuote(path)),
		}
	case mode&0o002 != 0:
		return &unreadable{
			why:  "can be written by everybody, and what it says would be executed",
			hint: "chmod go-w " + shellQuote(path),
		}
	case mode&0o020 != 0 && group != primary && group != 0:
		return &unreadable{
			why:  fmt.Sprintf("can be written by another group (gid %d), and what it says would be executed", group),
			hint: "chmod g-w " + shellQuote(path),
		}
	}
	return nil
}
