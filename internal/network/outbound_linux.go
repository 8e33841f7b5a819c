package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	outboundLimit = 30 * time.Second // of a connect: the container's kernel asks again
	flowIdle      = time.Minute
	maxFlows      = 512
	maxDatagram   = 64 << 10
)

// connect makes a connection that the container has begun: first at the far
// end, then here.
func (n *Network) connect(r *tcp.ForwarderRequest) {
	c := n.begin()
	if c == nil {
		r.Complete(true)
		return
	}
	defer c.done()
	id := r.ID()
	ctx, cancel := context.WithTimeout(n.life, outboundLimit)
	defer cancel()
	out, err := n.dialOut(ctx, fromStack(id.LocalAddress), id.LocalPort)
	if err != nil {
		n.gateway.complete(r, outcomeOf(err))
		return
	}
	var queue waiter.Queue
	ep, terr := r.CreateEndpoint(&queue)
	r.Complete(terr != nil)
	if terr != nil {
		out.abort()
		return
	}
	c.pass(newInner(&queue, ep), out)
}

// dialOut connects to where the container wants to.
func (n *Network) dialOut(ctx context.Context, to netip.Addr, port uint16) (end, error) {
	switch {
	case to == gatewayIP:
		if !slices.Contains(n.config.Reach, int(port)) {
			return nil, syscall.ECONNREFUSED
		}
		return dialHost(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port))
	case servicesNet.Contains(to):
		name, known := n.names.service(to)
		if !known {
			return nil, syscall.EHOSTUNREACH
		}
		return n.dialService(ctx, name, port)
	case to == nameServerIP:
		return nil, syscall.ECONNREFUSED
	case !isOutside(to):
		return nil, syscall.EHOSTUNREACH
	}
	return dialHost(ctx, netip.AddrPortFrom(to, port))
}

func dialHost(ctx context.Context, to netip.AddrPort) (end, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", to.String())
	if err != nil {
		return nil, err
	}
	return outer{c.(*net.TCPConn)}, nil
}

// isOutside says whether an address is one that the host may be asked to send
// to. The host's loopback is not, nor 0.0.0.0, which Linux takes for it.
func isOutside(a netip.Addr) bool {
	return !a.IsLoopback() && a.As4()[0] != 0 && !a.IsMulticast() && a.As4()[0] < 240 &&
		!subnet.Contains(a) && !servicesNet.Contains(a)
}

// A flow passes datagrams between a port of the container and one outside, or of
// another container.
type flow struct {
	n    *Network
	in   net.Conn
	out  net.Conn
	lost func(error) // tells who sends at in that something did not arrive
	last atomic.Int64
}

// datagram begins the flow that a datagram belongs to. False is for what has
// no such port, of which the container is told.
func (n *Network) datagram(r *udp.ForwarderRequest, quoted []byte) bool {
	id := r.ID()
	to := netip.AddrPortFrom(fromStack(id.LocalAddress), id.LocalPort)
	if to.Addr().IsMulticast() || to.Addr().As4()[0] >= 240 {
		return true // for nobody in particular: nobody answers
	}
	dial := n.destination(to)
	if dial == nil {
		return false
	}
	c := n.begin()
	if c == nil {
		return true // as on a full link
	}
	c.said()
	if !n.beginFlow() {
		c.done()
		return true
	}
	var queue waiter.Queue
	ep, err := r.CreateEndpoint(&queue) // which keeps what comes until there is the other end
	if err != nil {
		n.endFlow()
		c.done()
		return true
	}
	go func() {
		defer c.done()
		defer n.endFlow()
		n.flow(gonet.NewUDPConn(&queue, ep), dial, quoted)
	}()
	return true
}

// beginFlow counts a flow; false is for one too many.
func (n *Network) beginFlow() bool {
	if n.flows.Add(1) <= maxFlows {
		return true
	}
	n.flows.Add(-1)
	return false
}

func (n *Network) endFlow() { n.flows.Add(-1) }

// flow passes what comes to where dial leads.
func (n *Network) flow(in net.Conn, dial func(context.Context) (net.Conn, error), quoted []byte) {
	lost := func(err error) { n.undelivered(quoted, err) }
	ctx, cancel := context.WithTimeout(n.life, outboundLimit)
	out, err := dial(ctx)
	cancel()
	if err != nil {
		lost(err)
		in.Close()
		return
	}
	f := flow{n: n, in: in, out: out, lost: lost}
	f.run()
}

// undelivered tells the container why a datagram did not arrive.
func (n *Network) undelivered(quoted []byte, err error) {
	switch outcomeOf(err) {
	case refused:
		n.gateway.unreachable(quoted, header.ICMPv4PortUnreachable)
	case noHost:
		n.gateway.unreachable(quoted, header.ICMPv4HostUnreachable)
	case noNet:
		n.gateway.unreachable(quoted, header.ICMPv4NetUnreachable)
	}
}

// run passes datagrams until the flow has been idle.
func (f *flow) run() {
	f.last.Store(time.Now().UnixNano())
	closeBoth := func() {
		f.in.Close()
		f.out.Close()
	}
	stop := context.AfterFunc(f.n.life, closeBoth)
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer closeBoth()
		f.pass(f.in, f.out)
	}()
	f.pass(f.out, f.in)
	closeBoth()
	<-back
	stop()
}

func (f *flow) pass(to, from net.Conn) {
	buf := make([]byte, maxDatagram)
	for {
		deadline := time.Unix(0, f.last.Load()).Add(flowIdle)
		if !time.Now().Before(deadline) || from.SetReadDeadline(deadline) != nil {
			return
		}
		size, err := from.Read(buf)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			continue // unless the other direction was not idle, this was it
		case err == nil:
			f.last.Store(time.Now().UnixNano())
			_, err = to.Write(buf[:size])
		}
		if err == nil {
			continue
		}
		if f.n.life.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		// What was sent before may have come back as an error. The flow goes
		// on: somebody may listen there later.
		if outcomeOf(err) == failure {
			return
		}
		f.lost(err)
	}
}
