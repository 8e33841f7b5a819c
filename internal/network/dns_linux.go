package network

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// Resolvers in containers ask again after five seconds.
	dnsLimit = 4500 * time.Millisecond
	// dnsPatience is how long one server is waited for before another is asked
	// as well.
	dnsPatience = time.Second
	dnsIdle     = 10 * time.Second // of a connection
	dnsQueries  = 256              // at once
	dnsMaxSize  = 64 << 10
)

// A forwarder asks the host's resolvers.
type forwarder struct {
	fixed []netip.AddrPort
	good  atomic.Pointer[netip.AddrPort] // the server that answered last is asked first
}

// servers are those to ask, in order.
func (f *forwarder) servers() []netip.AddrPort {
	list := f.fixed
	if len(list) == 0 {
		list = hostResolvers()
	}
	good := f.good.Load()
	if good == nil || !slices.Contains(list, *good) {
		return list
	}
	first := []netip.AddrPort{*good}
	for _, s := range list {
		if s != *good {
			first = append(first, s)
		}
	}
	return first
}

type reply struct {
	from    netip.AddrPort
	message []byte
	err     error
}

// useful tells an answer from a server's word that it has none: another server
// may know better.
func (r reply) useful() bool {
	if r.err != nil {
		return false
	}
	code := r.message[3] & 0xf
	return code != 2 && code != 5 // SERVFAIL, REFUSED
}

// forward asks the servers one after the other, the next one when those before
// are slow or fail, and returns the first useful answer as it came.
func (f *forwarder) forward(ctx context.Context, network string, query []byte) []byte {
	ctx, cancel := context.WithTimeout(ctx, dnsLimit)
	defer cancel()
	servers := f.servers()
	replies := make(chan reply, len(servers))
	last := failed(query)
	var asked, answered int
	for {
		if asked < len(servers) {
			server := servers[asked]
			go func() {
				message, err := exchange(ctx, network, server, query)
				replies <- reply{server, message, err}
			}()
			asked++
		} else if answered == asked {
			return last
		}
		patience := ctx
		if asked < len(servers) {
			var done context.CancelFunc
			patience, done = context.WithTimeout(ctx, dnsPatience)
			defer done()
		}
		select {
		case r := <-replies:
			answered++
			if r.useful() {
				f.good.Store(&r.from)
				return r.message
			}
			if r.err == nil {
				last = r.message
			}
		case <-patience.Done():
			if ctx.Err() != nil {
				return last
			}
		}
	}
}

// exchange asks one server over udp or tcp.
func exchange(ctx context.Context, network string, server netip.AddrPort, query []byte) ([]byte, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	stream := network == "tcp"
	if stream {
		err = writeMessage(c, query)
	} else {
		_, err = c.Write(query)
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, dnsMaxSize)
	for {
		var message []byte
		if stream {
			message, err = readMessage(c, buf)
		} else {
			var n int
			n, err = c.Read(buf)
			message = buf[:n]
		}
		switch {
		case err != nil:
			return nil, err
		case len(message) >= 12 && message[0] == query[0] && message[1] == query[1] && message[2]&0x80 != 0:
			return message, nil
		}
	}
}

// Over TCP a message is preceded by its length.

func writeMessage(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}

func readMessage(r io.Reader, buf []byte) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	message := buf[:binary.BigEndian.Uint16(size[:])]
	_, err := io.ReadFull(r, message)
	return message, err
}

// resolve answers a query that came over udp or tcp. nil is no answer.
func (n *Network) resolve(network string, query []byte) []byte {
	answer, isQuery := n.names.answer(query)
	if isQuery && answer == nil {
		answer = n.forwarder.forward(n.life, network, query)
	}
	return answer
}

// serveDatagrams answers queries over UDP.
func (n *Network) serveDatagrams(c net.PacketConn) {
	slots := make(chan struct{}, dnsQueries)
	buf := make([]byte, dnsMaxSize)
	for {
		size, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		default: // it is asked again
			continue
		}
		query := slices.Clone(buf[:size])
		n.running.Go(func() {
			defer func() { <-slots }()
			if answer := n.resolve("udp", query); answer != nil {
				_, _ = c.WriteTo(answer, from) // nothing follows from a lost answer
			}
		})
	}
}

// serveQueries answers the queries of one connection.
func (n *Network) serveQueries(c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(n.life, func() { c.Close() })()
	buf := make([]byte, dnsMaxSize)
	for {
		if err := c.SetDeadline(time.Now().Add(dnsIdle)); err != nil {
			return
		}
		query, err := readMessage(c, buf)
		if err != nil {
			return
		}
		answer := n.resolve("tcp", query)
		if answer == nil || writeMessage(c, answer) != nil {
			return
		}
	}
}
