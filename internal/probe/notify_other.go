//go:build !linux

package probe

import "context"

// NotifySocket is what NOTIFY_SOCKET names; this system has none.
type NotifySocket struct{}

// ListenNotify returns ErrUnsupported.
func ListenNotify(string) (*NotifySocket, error) { return nil, ErrUnsupported }

// Path is empty.
func (s *NotifySocket) Path() string { return "" }

// Discard does nothing.
func (s *NotifySocket) Discard() {}

// Close does nothing.
func (s *NotifySocket) Close() error { return nil }

func (s *NotifySocket) receive(context.Context, func(message)) error { return ErrUnsupported }

func alive(int) bool { return true }
