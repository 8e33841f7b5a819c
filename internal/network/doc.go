// Package network is the network of one builtin container, made in user space:
// without root, iptables, a tun device or a helper program.
//
// It starts no process and knows neither images nor services' states. It is a
// leaf: it imports no other room of locald.
//
// # Parts
//
// Attach runs in the container's network namespace, before its main program. It
// brings up lo and a pair of connected interfaces. One is eth0, with the
// container's address; the other has none, and what the kernel sends to it is
// read from a packet socket. That descriptor goes to a process in the host's
// namespaces, where a Network runs a TCP/IP stack on it: the gateway, which
// answers for every address that is not the container's and makes ordinary
// connections on the host for what the container asks.
//
//	10.0.2.15      eth0, the container
//	10.0.2.2       the gateway: host.docker.internal, for the ports of Reach
//	10.0.2.3       names, over UDP and TCP
//	10.0.3.0/24    the other services of the project, by their names
//	the rest       dialled from the host
//
// Hosts of the real network within 10.0.2.0/24 and 10.0.3.0/24 are hidden by
// these. There is no IPv6 but ::1.
//
// # Connections
//
// A connection is made at both ends before anything is passed on. Out of the
// container the far end comes first, so refused is refused and unreachable is
// unreachable. At a published port the host's kernel has accepted before
// locald sees the connection; where the container then refuses, it is reset at
// once. That takes well below a millisecond, so whoever connects to find out
// whether a service is there has to wait a moment for the end of the
// connection.
//
// Each direction ends by itself. A reset ends both and is passed on as a reset,
// except between containers: a Unix socket knows none, so the end is passed on.
//
// # Other services
//
// Each container serves Dir/NAME.sock, where it is asked to connect to one of
// its own ports (project_linux.go has the four bytes), or to send datagrams to
// one, which then go over that socket in frames. The directory is the list of
// names. A datagram for a service that is not there is answered with port
// unreachable.
//
// UDP works like with a router that translates addresses: a flow is forgotten
// when it was idle for a minute. ICMP does not leave: the gateway and the name
// server answer a ping, nobody else does.
package network
