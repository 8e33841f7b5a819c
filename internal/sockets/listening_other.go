//go:build !linux

package sockets

// Listening returns ErrUnsupported.
func Listening() ([]Socket, error) { return nil, ErrUnsupported }

// Inodes returns ErrUnsupported.
func Inodes(int) (map[uint64]bool, error) { return nil, ErrUnsupported }

// HolderOf knows nobody.
func HolderOf(int) (Holder, bool) { return Holder{}, false }
