package network

import (
	"fmt"
	"net/netip"
)

// Addresses that programs in the container see.
const (
	Address    = "10.0.2.15" // the container's own, on eth0
	Gateway    = "10.0.2.2"  // the host's ports of Config.Reach
	NameServer = "10.0.2.3"
)

// HostName is the name of Gateway inside the container.
const HostName = "host.docker.internal"

// A Port is a TCP port of the container that is reachable at the host's
// 127.0.0.1.
type Port struct {
	Host, Container int
}

// Config says what a Network serves.
type Config struct {
	// Name is the service's: Dir/Name.sock is its socket, and inside the name
	// stands for the container's own address.
	Name string
	// Dir is the directory of the project's sockets, made if it is not there.
	// It has to be the user's own and closed to others.
	Dir   string
	Ports []Port
	// Reach are the TCP ports of the host's 127.0.0.1 that the container
	// reaches at Gateway. The host's loopback is otherwise out of its reach.
	Reach []int
	// Resolvers are asked for the names that are not the project's. Without
	// any, those are asked that /etc/resolv.conf of the host names at the time.
	Resolvers []netip.AddrPort
}

// A PortError says which port of the host cannot be listened on. It wraps
// EADDRINUSE where somebody has it.
type PortError struct {
	Port int
	Err  error
}

func (e *PortError) Error() string { return fmt.Sprintf("127.0.0.1:%d: %v", e.Port, e.Err) }

func (e *PortError) Unwrap() error { return e.Err }

// A ServedError says that a run of the service still serves the socket at Path.
type ServedError struct{ Path string }

func (e *ServedError) Error() string { return e.Path + ": another run of the service serves it" }
