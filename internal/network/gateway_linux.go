package network

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	nic = 1

	// A connection's buffers. More made nothing faster; many connections that
	// nobody reads from would take more memory, and overrun the link's queue.
	bufferMin, bufferMax = 4 << 10, 256 << 10

	// A connection that the container's kernel has given up without a word, as
	// it does when its last packets got lost too often, is asked for.
	keepaliveIdle, keepaliveInterval, keepaliveCount = 30 * time.Second, 10 * time.Second, 3

	// timeWait guards against packets that were on their way for long. The
	// link keeps order and has no long ways.
	timeWait = time.Second

	// connecting is how many connections of the container may be connecting.
	connecting = 1024

	// dialLimit is how long the container may take to accept. Its kernel
	// answers at once, unless the queue of whoever listens is full.
	dialLimit = 10 * time.Second
)

// A gateway is the stack at the other end of the container's link.
type gateway struct {
	stack *stack.Stack
	tcp   *tcp.Forwarder

	mu   sync.Mutex
	syns map[stack.TransportEndpointID][]byte // what an unreachable message has to quote
}

// newGateway makes the stack. connect is called in a goroutine for every
// connection that the container begins, flow for every datagram that belongs to
// no flow yet.
func newGateway(l *link, connect func(*tcp.ForwarderRequest), flow func(*udp.ForwarderRequest, []byte) bool) (*gateway, error) {
	g := &gateway{
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
		}),
		syns: map[stack.TransportEndpointID][]byte{},
	}
	if err := g.configure(l); err != nil {
		g.stack.Destroy()
		return nil, fmt.Errorf("gateway: %s", err)
	}
	g.tcp = tcp.NewForwarder(g.stack, bufferMax, connecting, func(r *tcp.ForwarderRequest) {
		id := r.ID()
		connect(r)
		g.mu.Lock()
		delete(g.syns, id)
		g.mu.Unlock()
	})
	g.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, g.segment)
	g.stack.SetTransportProtocolHandler(udp.ProtocolNumber, func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		return flow(udp.NewForwarderRequest(g.stack, id, pkt.Clone()), quote(pkt))
	})
	return g, nil
}

func (g *gateway) configure(l *link) tcpip.Error {
	sack, timeWait := tcpip.TCPSACKEnabled(true), tcpip.TCPTimeWaitTimeoutOption(timeWait)
	for _, option := range []tcpip.SettableTransportProtocolOption{
		&sack, &timeWait,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: bufferMax, Max: bufferMax},
		&tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: bufferMax, Max: bufferMax},
	} {
		if err := g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return err
		}
	}
	if err := g.stack.CreateNIC(nic, l); err != nil {
		return err
	}
	for _, a := range []struct {
		ip  netip.Addr
		use stack.PrimaryEndpointBehavior
	}{
		{gatewayIP, stack.CanBePrimaryEndpoint},
		{nameServerIP, stack.NeverPrimaryEndpoint},
	} {
		address := tcpip.ProtocolAddress{
			Protocol:          ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: toStack(a.ip), PrefixLen: subnet.Bits()},
		}
		if err := g.stack.AddProtocolAddress(nic, address, stack.AddressProperties{PEB: a.use}); err != nil {
			return err
		}
	}
	// It takes every packet for its own, and answers from every address.
	if err := g.stack.SetPromiscuousMode(nic, true); err != nil {
		return err
	}
	if err := g.stack.SetSpoofing(nic, true); err != nil {
		return err
	}
	g.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	return nil
}

// close ends the stack. The link is closed in between: it carries the last
// resets, and it must not deliver packets to what is waited for.
func (g *gateway) close(l *link) {
	g.stack.Close()
	l.close()
	g.stack.Wait()
}

// segment takes a TCP segment that belongs to no connection.
func (g *gateway) segment(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	flags := header.TCP(pkt.TransportHeader().Slice()).Flags()
	if !flags.Contains(header.TCPFlagSyn) || flags.Contains(header.TCPFlagAck) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, asked := g.syns[id]; !asked {
		if len(g.syns) >= connecting {
			return true // it is sent again
		}
		g.syns[id] = quote(pkt)
	}
	return g.tcp.HandlePacket(id, pkt)
}

// quote is what a message about a packet repeats of it: the header, and the
// first eight bytes of what follows.
func quote(pkt *stack.PacketBuffer) []byte {
	transport := pkt.TransportHeader().Slice()
	ip := pkt.NetworkHeader().Slice()
	return append(append(make([]byte, 0, len(ip)+8), ip...), transport[:min(8, len(transport))]...)
}

// complete ends an attempt to connect that has failed.
func (g *gateway) complete(r *tcp.ForwarderRequest, why outcome) {
	g.mu.Lock()
	syn := g.syns[r.ID()]
	g.mu.Unlock()
	switch {
	case why == refused:
		r.Complete(true)
		return
	case syn == nil:
	case why == noHost:
		g.unreachable(syn, header.ICMPv4HostUnreachable)
	case why == noNet:
		g.unreachable(syn, header.ICMPv4NetUnreachable)
	}
	r.Complete(false)
}

// unreachable tells the container that a packet did not arrive.
func (g *gateway) unreachable(quoted []byte, code header.ICMPv4Code) {
	size := header.IPv4MinimumSize + header.ICMPv4MinimumSize + len(quoted)
	packet := make([]byte, size)
	ip := header.IPv4(packet)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(size),
		TTL:         64,
		Protocol:    uint8(header.ICMPv4ProtocolNumber),
		SrcAddr:     toStack(gatewayIP),
		DstAddr:     toStack(containerIP),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	icmp := header.ICMPv4(packet[header.IPv4MinimumSize:])
	icmp.SetType(header.ICMPv4DstUnreachable)
	icmp.SetCode(code)
	copy(icmp[header.ICMPv4MinimumSize:], quoted)
	icmp.SetChecksum(header.ICMPv4Checksum(icmp, 0))
	_ = g.stack.WritePacketToRemote(nic, tcpip.LinkAddress(linkAddress[:]), ipv4.ProtocolNumber, buffer.MakeWithData(packet)) // may get lost like any
}

// dial connects to a port of the container.
func (g *gateway) dial(ctx context.Context, port uint16) (end, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	var queue waiter.Queue
	ep, err := g.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if err != nil {
		return nil, stackError(err)
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	err = ep.Connect(tcpip.FullAddress{NIC: nic, Addr: toStack(containerIP), Port: port})
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ready:
			err = ep.LastError()
		case <-ctx.Done():
			ep.Abort()
			ep.Close()
			return nil, syscall.ETIMEDOUT
		}
	}
	if err != nil {
		ep.Close()
		return nil, stackError(err)
	}
	return newInner(&queue, ep), nil
}

// listen serves a port of the name server's address.
func (g *gateway) listen(port uint16) (*gonet.TCPListener, *gonet.UDPConn, error) {
	address := tcpip.FullAddress{NIC: nic, Addr: toStack(nameServerIP), Port: port}
	datagrams, err := gonet.DialUDP(g.stack, &address, nil, ipv4.ProtocolNumber)
	if err != nil {
		return nil, nil, err
	}
	connections, err := gonet.ListenTCP(g.stack, address, ipv4.ProtocolNumber)
	if err != nil {
		datagrams.Close()
		return nil, nil, err
	}
	return connections, datagrams, nil
}

func toStack(ip netip.Addr) tcpip.Address { return tcpip.AddrFrom4(ip.As4()) }

func fromStack(a tcpip.Address) netip.Addr { return netip.AddrFrom4(a.As4()) }

// stackError is the error of the system that says the same.
func stackError(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionRefused, *tcpip.ErrConnectionReset:
		return syscall.ECONNREFUSED
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrHostUnreachable:
		return syscall.EHOSTUNREACH
	}
	return fmt.Errorf("gateway: %s", err)
}
