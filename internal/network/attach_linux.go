package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// linkMTU is the largest whose frames fit in 64 KiB: packets are copied, not
	// sent, so fewer are better.
	linkMTU = 64<<10 - 16
	// linkQueue is how much may wait for the gateway to read. The kernel
	// grants what net.core.rmem_max allows.
	linkQueue = 4 << 20

	containerEnd, gatewayEnd = "eth0", "gateway"
)

// linkAddress is the Ethernet address of eth0 and of what answers behind it:
// without ARP the kernel sends to its own. That it is not the other interface's
// keeps the kernel from taking the packets for its own ones.
var linkAddress = [6]byte{0x02, 'l', 'o', 'c', 'a', 'l'}

var (
	containerIP  = netip.MustParseAddr(Address)
	gatewayIP    = netip.MustParseAddr(Gateway)
	nameServerIP = netip.MustParseAddr(NameServer)
	subnet       = netip.MustParsePrefix(Gateway + "/24").Masked()
	servicesNet  = netip.MustParsePrefix("10.0.3.0/24")
)

// Attach sets up the network namespace of the calling process, which must be a
// new one that it has CAP_NET_ADMIN and CAP_NET_RAW in, with the /proc of the
// host or one of its own. The descriptor is for Network.Serve; until that reads
// from it, what is sent waits or is lost. As long as it is open the namespace
// stays, and what was sent and not yet acknowledged is sent again.
func Attach() (*os.File, error) {
	link, err := attach()
	if err != nil {
		return nil, fmt.Errorf("network of the container: %w", err)
	}
	return link, nil
}

func attach() (*os.File, error) {
	n, err := dialNetlink()
	if err != nil {
		return nil, err
	}
	defer n.close()
	if err := n.set(1, unix.IFF_UP); err != nil {
		return nil, fmt.Errorf("lo: %w", err)
	}
	if err := settings(); err != nil {
		return nil, err
	}
	if err := n.pair(containerEnd, gatewayEnd, linkAddress[:]); err != nil {
		return nil, fmt.Errorf("pair of interfaces: %w", err)
	}
	inside, err1 := net.InterfaceByName(containerEnd)
	outside, err2 := net.InterfaceByName(gatewayEnd)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	// A packet socket of an interface that is down begins with an error.
	if err := n.set(outside.Index, unix.IFF_UP); err != nil {
		return nil, fmt.Errorf("%s: %w", gatewayEnd, err)
	}
	link, err := packetSocket(outside.Index)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	err = errors.Join(
		n.set(inside.Index, unix.IFF_UP|unix.IFF_NOARP),
		n.address(inside.Index, containerIP.As4(), byte(subnet.Bits())),
	)
	if err == nil {
		err = n.route(inside.Index, gatewayIP.As4())
	}
	if err != nil {
		link.Close()
		return nil, fmt.Errorf("%s: %w", containerEnd, err)
	}
	return link, nil
}

// settings are those of the namespace that differ from the kernel's. A new
// namespace may have taken others over from the host.
func settings() error {
	for _, s := range []struct{ name, value string }{
		{"ipv6/conf/default/disable_ipv6", "1"}, // of interfaces to come: lo keeps ::1
		{"ipv4/ip_forward", "0"},
		{"ipv4/ip_unprivileged_port_start", "0"}, // as in Docker: the ports are nobody else's
	} {
		err := os.WriteFile("/proc/sys/net/"+s.name, []byte(s.value), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
			return err
		}
	}
	return nil
}

// packetSocket is a socket that sends and receives the frames of an interface
// that carry IPv4.
func packetSocket(index int) (*os.File, error) {
	protocol := uint16(unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8) // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// What is not granted is not needed.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, linkQueue)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, linkQueue)
	// Directly to eth0: the kernel may take a second to begin a new interface's
	// queue, and drops what is sent before.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "link"), nil
}
