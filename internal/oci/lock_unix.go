//go:build unix

package oci

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// hold takes the lock file at path. Each call opens the file anew, so it keeps
// goroutines of one process apart as well as processes. There is no way to wait
// for a lock and for ctx, so it asks again and again.
func hold(ctx context.Context, path string, how int) (release func(), err error) {
	pause := 5 * time.Millisecond
	for {
		release, err := seize(path, how)
		if release != nil || err != nil {
			return release, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// seize is hold without waiting: nothing is returned when others hold it.
func seize(path string, how int) (release func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			err = os.MkdirAll(filepath.Dir(path), 0o700)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, nil
			}
			return nil, &os.PathError{Op: "lock", Path: path, Err: err}
		}
		held, err1 := f.Stat()
		there, err2 := os.Lstat(path)
		if err1 == nil && err2 == nil && os.SameFile(held, there) {
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close() // it was deleted under us: the lock of another file says nothing
	}
}

const (
	shared    = syscall.LOCK_SH
	exclusive = syscall.LOCK_EX
)
