//go:build !linux

package network

import (
	"context"
	"fmt"
	"os"
	goruntime "runtime"
)

// A Network is the gateway of one container; there are none on this system.
type Network struct{}

func unsupported() error {
	return fmt.Errorf("networks of builtin containers need Linux; this is %s", goruntime.GOOS)
}

// Attach reports that this system has no network namespaces.
func Attach() (*os.File, error) { return nil, unsupported() }

// Open reports that this system has no network namespaces.
func Open(Config) (*Network, error) { return nil, unsupported() }

// Serve reports that this system has no network namespaces.
func (*Network) Serve(context.Context, *os.File) error { return unsupported() }

// Close closes nothing.
func (*Network) Close() error { return nil }
