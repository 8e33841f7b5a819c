package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxConnections = 4096
	// drainLimit is how long what a container has said may take to arrive after
	// its end.
	drainLimit  = time.Second
	acceptPause = 50 * time.Millisecond
)

// A Network is the gateway of one container.
type Network struct {
	config    Config
	dir       *os.File
	project   *net.UnixListener
	ports     []*net.TCPListener
	names     *names
	forwarder forwarder
	gateway   *gateway

	life    context.Context // of everything that Serve begins
	kill    context.CancelFunc
	running sync.WaitGroup
	flows   atomic.Int64

	talking sync.WaitGroup // the connections whose container has more to say

	mu      sync.Mutex
	served  chan struct{} // closed when Serve has returned; nil before it is called
	closing bool          // nothing more is begun
	ended   bool          // what was begun ends
	busy    int           // connections and flows
	joints  map[*joint]struct{}
}

// Open takes the ports and the socket of the service. It opens nothing when it
// fails: with a *PortError, a *ServedError, or about the directory. Connections
// wait for Serve.
func Open(c Config) (*Network, error) {
	if !isName(c.Name) {
		return nil, fmt.Errorf("network: %q is not the name of a service", c.Name)
	}
	n := &Network{config: c, joints: map[*joint]struct{}{}}
	n.forwarder.fixed = c.Resolvers
	n.life, n.kill = context.WithCancel(context.Background())
	if err := n.open(); err != nil {
		n.kill()
		n.shut()
		if n.dir != nil {
			n.dir.Close()
		}
		return nil, err
	}
	return n, nil
}

func (n *Network) open() (err error) {
	if n.dir, err = openProject(n.config.Dir); err != nil {
		return fmt.Errorf("directory of the project's network: %w", err)
	}
	n.names = newNames(n.config.Name, n.dir)
	for _, p := range n.config.Ports {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: p.Host})
		if err != nil {
			var errno syscall.Errno
			if errors.As(err, &errno) {
				err = errno
			}
			return &PortError{p.Host, err}
		}
		n.ports = append(n.ports, l)
	}
	n.project, err = listenProject(n.dir, n.config.Name)
	return err
}

// shut lets nobody in any more.
func (n *Network) shut() {
	n.mu.Lock()
	n.closing = true
	n.mu.Unlock()
	for _, l := range n.ports {
		l.Close()
	}
	if n.project != nil {
		n.project.Close() // and removes it
	}
}

// Close ends Serve without waiting for what the container has said, or what
// Open has opened if Serve was not called. It may be called again.
func (n *Network) Close() error {
	n.kill()
	n.shut()
	n.mu.Lock()
	served := n.served
	n.mu.Unlock()
	if served != nil {
		<-served
		return nil
	}
	n.dir.Close()
	return nil
}

// Serve is the network of the container whose Attach made file, which it takes
// over. It returns when ctx is done or after Close, and nothing that it began is
// left then. End ctx when the container has ended: what its programs have sent
// has a second to arrive. An error says that the container's interface is gone,
// or that there was none.
func (n *Network) Serve(ctx context.Context, file *os.File) error {
	l, err := newLink(file)
	if err == nil {
		err = n.serve(ctx, l)
	}
	if err != nil {
		return fmt.Errorf("network of %s: %w", n.config.Name, err)
	}
	return nil
}

func (n *Network) serve(ctx context.Context, l *link) error {
	n.mu.Lock()
	if n.closing || n.served != nil {
		n.mu.Unlock()
		l.close()
		return net.ErrClosed
	}
	n.served = make(chan struct{})
	n.mu.Unlock()
	defer close(n.served)
	defer n.dir.Close()

	if err := n.start(l); err != nil {
		n.shut()
		l.close()
		return err
	}
	var err error
	select {
	case <-ctx.Done():
		n.shut()
		n.drain()
	case <-n.life.Done():
	case <-l.down:
		err = fmt.Errorf("%s: %w", containerEnd, l.err)
	}
	n.shut()
	n.end()
	n.gateway.close(l)
	n.running.Wait()
	return err
}

// start begins to serve.
func (n *Network) start(l *link) (err error) {
	if n.gateway, err = newGateway(l, n.connect, n.datagram); err != nil {
		return err
	}
	queries, datagrams, err := n.gateway.listen(53)
	if err != nil {
		n.gateway.close(l)
		return err
	}
	context.AfterFunc(n.life, func() {
		queries.Shutdown()
		queries.Close()
		datagrams.Close()
	})
	n.running.Go(func() { n.serveDatagrams(datagrams) })
	accept(n, queries.Accept, func(c *connection, query net.Conn) {
		c.said()
		n.serveQueries(query)
	})
	accept(n, n.project.AcceptUnix, func(c *connection, from *net.UnixConn) { c.serve(from) })
	for i, port := range n.ports {
		accept(n, port.AcceptTCP, func(c *connection, from *net.TCPConn) {
			c.publish(from, uint16(n.config.Ports[i].Container))
		})
	}
	l.start()
	return nil
}

// accept serves the connections of a listener, until it is closed.
func accept[C net.Conn](n *Network, next func() (C, error), serve func(*connection, C)) {
	n.running.Go(func() {
		for {
			from, err := next()
			switch {
			case n.closed():
				if err == nil {
					from.Close()
				}
				return
			case err != nil: // no descriptors are left
				select {
				case <-time.After(acceptPause):
				case <-n.life.Done():
				}
				continue
			}
			c := n.begin()
			if c == nil {
				from.Close()
				continue
			}
			go func() {
				defer c.done()
				serve(c, from)
			}()
		}
	})
}

func (n *Network) closed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closing
}

// A connection is one that the network makes or has made, or a flow.
type connection struct {
	n    *Network
	said func() // the container has nothing more to say, or there is no connection
}

// begin counts a connection. It is nil when there are enough, and after shut.
func (n *Network) begin() *connection {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing || n.busy >= maxConnections {
		return nil
	}
	n.busy++
	n.running.Add(1)
	n.talking.Add(1)
	return &connection{n, sync.OnceFunc(n.talking.Done)}
}

func (c *connection) done() {
	c.said()
	c.n.mu.Lock()
	c.n.busy--
	c.n.mu.Unlock()
	c.n.running.Done()
}

// pass passes bytes between both ends until both have ended.
func (c *connection) pass(in, out end) {
	j := newJoint(in, out, c.said)
	c.n.mu.Lock()
	if c.n.ended {
		c.n.mu.Unlock()
		j.abort()
		return
	}
	c.n.joints[j] = struct{}{}
	c.n.mu.Unlock()
	j.run()
	c.n.mu.Lock()
	delete(c.n.joints, j)
	c.n.mu.Unlock()
}

// publish connects a client of the host to a port of the container.
func (c *connection) publish(from *net.TCPConn, port uint16) {
	out := outer{from}
	in, err := c.n.gateway.dial(c.n.life, port)
	if err != nil {
		out.abort()
		return
	}
	c.pass(in, out)
}

// drain waits until all that the container has said is passed on.
func (n *Network) drain() {
	done := make(chan struct{})
	n.running.Go(func() {
		n.talking.Wait()
		close(done)
	})
	select {
	case <-done:
	case <-n.life.Done():
	case <-time.After(drainLimit):
	}
}

// end ends what is left.
func (n *Network) end() {
	n.kill()
	n.mu.Lock()
	n.ended = true
	left := slices.Collect(maps.Keys(n.joints))
	n.mu.Unlock()
	for _, j := range left {
		j.end()
	}
}
