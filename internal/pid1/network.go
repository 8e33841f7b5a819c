package pid1

import (
	"context"
	"encoding/json"
	"os"
)

// Network connects containers that have a network of their own.
type Network interface {
	// Attach is called by the inner process in the container's network, to which it
	// may do anything, while it still sees the host's files. What it returns goes to
	// Serve.
	Attach() (*os.File, error)
	// Open is called by the outer process with the Network of the Spec, before the
	// container is made. The container is not made when it fails.
	Open(config json.RawMessage) (Gateway, error)
}

// Gateway is the network of one container, seen from the host.
type Gateway interface {
	// Serve serves until ctx ends. When it returns before that, the container
	// ends.
	Serve(ctx context.Context, link *os.File) error
	// Close comes after Serve, or in its place.
	Close() error
}
