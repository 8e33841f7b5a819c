//go:build !linux

package pid1

import (
	"context"
	"os"
	"syscall"
)

var errLinux = &Error{Kind: Forbidden, What: "container", Why: "locald makes containers itself on Linux only", Hint: "docker"}

// Main is the hidden command "locald container", which is for Linux only.
func Main([]string, Network) int { return ExitFailed }

// Supported reports that this is not Linux.
func Supported(string) error { return errLinux }

// Ready reports that this is not Linux.
func Ready(context.Context, string) error { return errLinux }

// Offered reports that this is not Linux.
func Offered(context.Context, string) (string, error) { return "", errLinux }

// Running is a command that has been started, which is for Linux only.
type Running struct{ Terminal *os.File }

// Exec reports that this is not Linux.
func Exec(context.Context, string, Command) (*Running, error) { return nil, errLinux }

// Wait is for Linux only.
func (*Running) Wait() (int, error) { return 0, errLinux }

// Signal is for Linux only.
func (*Running) Signal(syscall.Signal) error { return errLinux }

// Close is for Linux only.
func (*Running) Close() error { return errLinux }

// FindRange reports that this is not Linux.
func FindRange() (*Range, error) { return nil, errLinux }

func removeAsRange(_ string, why error) error { return why }

// Own is for Linux only.
func (*Range) Own(string, []Owner) error { return errLinux }
