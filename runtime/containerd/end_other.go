//go:build !linux

package containerd

import (
	"errors"
	"syscall"
)

func closeAtEnd(int, chan<- struct{}) error { return errors.ErrUnsupported }

func signalOf(string) syscall.Signal { return syscall.SIGTERM }
