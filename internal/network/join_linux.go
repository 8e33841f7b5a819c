package network

import (
	"errors"
	"io"
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"
)

// An end is a connection that locald has on one side of the gateway.
type end interface {
	io.ReadWriteCloser
	// CloseWrite says that nothing more will be written.
	CloseWrite() error
	// abort resets the connection: what was not sent yet is not.
	abort()
}

// inner is a connection with the container, on the gateway's stack.
type inner struct {
	*gonet.TCPConn
	endpoint tcpip.Endpoint
}

func newInner(queue *waiter.Queue, endpoint tcpip.Endpoint) inner {
	idle, interval := tcpip.KeepaliveIdleOption(keepaliveIdle), tcpip.KeepaliveIntervalOption(keepaliveInterval)
	_ = endpoint.SetSockOpt(&idle) // TCP has these
	_ = endpoint.SetSockOpt(&interval)
	_ = endpoint.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
	endpoint.SocketOptions().SetKeepAlive(true)
	return inner{gonet.NewTCPConn(queue, endpoint), endpoint}
}

func (i inner) abort() {
	i.endpoint.Abort()
	i.endpoint.Close()
}

// outer is a TCP connection of the host.
type outer struct{ *net.TCPConn }

func (o outer) abort() { reset(o.TCPConn) }

// reset closes with RST instead of FIN.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// service is a connection with another container's gateway.
type service struct{ *net.UnixConn }

func (s service) abort() { _ = s.Close() }

// A joint passes bytes between the container and somebody else.
type joint struct {
	in, out end
	said    func()        // is called when all that the container sent is passed on
	heard   chan struct{} // closed then
	once    sync.Once     // for the end of both
}

func newJoint(in, out end, said func()) *joint {
	return &joint{in: in, out: out, said: said, heard: make(chan struct{})}
}

// run passes bytes until both directions have ended.
func (j *joint) run() {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		j.pass(j.in, j.out)
	}()
	j.pass(j.out, j.in)
	close(j.heard)
	j.said()
	<-answered
	j.once.Do(func() {
		_ = j.in.Close()
		_ = j.out.Close()
	})
}

// end ends both directions. What the container said in full still arrives.
func (j *joint) end() {
	select {
	case <-j.heard:
		j.once.Do(func() {
			_ = j.out.Close()
			j.in.abort()
		})
	default:
		j.abort()
	}
}

func (j *joint) abort() {
	j.once.Do(func() {
		j.in.abort()
		j.out.abort()
	})
}

// buffers are as large as the packets of the link.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// pass copies one direction. An end is passed on as an end, and anything else
// that stops it as a reset of both.
func (j *joint) pass(to, from end) {
	b := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(b)
	for {
		n, err := from.Read(b[:])
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				j.abort()
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite() // it may be gone: its own direction tells
			return
		case err != nil:
			j.abort()
			return
		}
	}
}
