package network

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// refusal stands where the length of a datagram does: nobody has listened for
// what was sent.
const refusal = 0xffff

// framed are datagrams on a stream between two gateways: the length in network
// order, and the datagram. A read that timed out goes on where it was. What ends
// the stream is net.ErrClosed.
type framed struct {
	*net.UnixConn
	frame []byte // what has come of the next one
}

func newFramed(c *net.UnixConn) *framed { return &framed{UnixConn: c} }

func (f *framed) Read(datagram []byte) (int, error) {
	if err := f.fill(2); err != nil {
		return 0, err
	}
	size := int(binary.BigEndian.Uint16(f.frame))
	if size == refusal {
		f.frame = f.frame[:0]
		return 0, syscall.ECONNREFUSED
	}
	if err := f.fill(2 + size); err != nil {
		return 0, err
	}
	n := copy(datagram, f.frame[2:])
	f.frame = f.frame[:0]
	return n, nil
}

// fill reads until so many bytes of the frame are there.
func (f *framed) fill(size int) error {
	if cap(f.frame) < size {
		f.frame = append(make([]byte, 0, size), f.frame...)
	}
	for len(f.frame) < size {
		n, err := f.UnixConn.Read(f.frame[len(f.frame):size])
		f.frame = f.frame[:len(f.frame)+n]
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err != nil {
			return net.ErrClosed
		}
	}
	return nil
}

func (f *framed) Write(datagram []byte) (int, error) {
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(datagram)), uint16(len(datagram)))
	if _, err := f.UnixConn.Write(append(frame, datagram...)); err != nil {
		return 0, net.ErrClosed
	}
	return len(datagram), nil
}

// refuse tells the other gateway that nobody has listened.
func (f *framed) refuse() {
	_, _ = f.UnixConn.Write(binary.BigEndian.AppendUint16(nil, refusal)) // may get lost like any
}

// dialDatagrams begins to send to a port of the container. refused is called
// when nobody has listened there: a read would not tell of that.
func (g *gateway) dialDatagrams(port uint16, refused func()) (net.Conn, error) {
	var queue waiter.Queue
	ep, err := g.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if err != nil {
		return nil, stackError(err)
	}
	entry := waiter.NewFunctionEntry(waiter.EventErr, func(waiter.EventMask) {
		if _, is := ep.LastError().(*tcpip.ErrConnectionRefused); is {
			go refused() // the stack waits for nobody
		}
	})
	queue.EventRegister(&entry)
	if err := ep.Connect(tcpip.FullAddress{NIC: nic, Addr: toStack(containerIP), Port: port}); err != nil {
		ep.Close()
		return nil, stackError(err)
	}
	return gonet.NewUDPConn(&queue, ep), nil
}

// serveFlow passes datagrams of another container to a port of this one.
func (c *connection) serveFlow(from *net.UnixConn, port uint16) {
	defer from.Close()
	c.said()
	if !c.n.beginFlow() {
		_, _ = from.Write([]byte{byte(failure)}) // whoever has gone needs no answer
		return
	}
	defer c.n.endFlow()
	peer := newFramed(from)
	to, err := c.n.gateway.dialDatagrams(port, peer.refuse)
	if _, answerErr := from.Write([]byte{byte(outcomeOf(err))}); err != nil || answerErr != nil {
		if err == nil {
			to.Close()
		}
		return
	}
	f := flow{n: c.n, in: peer, out: to, lost: func(error) {}}
	f.run()
}

// dialFlow begins to send to a port of another container.
func (n *Network) dialFlow(ctx context.Context, name string, port uint16) (net.Conn, error) {
	c, err := n.ask(ctx, name, datagramMark, port)
	if errors.Is(err, syscall.EHOSTUNREACH) {
		err = syscall.ECONNREFUSED // of another reason a program that sends datagrams is not told
	}
	if err != nil {
		return nil, err
	}
	return newFramed(c), nil
}

// destination is how a flow of the container begins; nil where it cannot.
func (n *Network) destination(to netip.AddrPort) func(context.Context) (net.Conn, error) {
	if servicesNet.Contains(to.Addr()) {
		name, known := n.names.service(to.Addr())
		if !known {
			return nil
		}
		return func(ctx context.Context) (net.Conn, error) { return n.dialFlow(ctx, name, to.Port()) }
	}
	if !isOutside(to.Addr()) {
		return nil
	}
	return func(context.Context) (net.Conn, error) { return net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to)) }
}
