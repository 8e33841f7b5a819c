package container

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// reach holds the forwarders that let containers reach ports of this host's
// loopback at their network's gateway address.
type reach struct {
	mu       sync.Mutex
	forwards map[string]*forward // by address and port
}

// forward is one port of one gateway.
type forward struct {
	gateway netip.AddrPort
	subnet  netip.Prefix
	target  netip.AddrPort
	users   int
	end     context.CancelFunc
}

// open makes the ports reachable for one container more, until closed is called.
func (r *Runtime) open(n *projectNetwork, ports []int) (closed func()) {
	var opened []func()
	for _, port := range ports {
		opened = append(opened, r.openPort(n, uint16(port)))
	}
	return func() {
		for _, closed := range opened {
			closed()
		}
	}
}

func (r *Runtime) openPort(n *projectNetwork, port uint16) (closed func()) {
	gateway := netip.AddrPortFrom(n.gateway, port)
	key := gateway.String()
	r.reach.mu.Lock()
	defer r.reach.mu.Unlock()
	f := r.reach.forwards[key]
	if f == nil {
		f = &forward{gateway: gateway, subnet: n.subnet, target: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
		ctx, end := context.WithCancel(r.life)
		f.end = end
		r.reach.forwards[key] = f
		listener := f.listen(ctx) // here, so that it is there when the container starts
		r.running.Go(func() { f.serve(ctx, listener) })
	}
	f.users++
	return func() {
		r.reach.mu.Lock()
		defer r.reach.mu.Unlock()
		f.users--
		if f.users == 0 {
			f.end()
			delete(r.reach.forwards, key)
		}
	}
}

// listen opens the gateway's side while, and only while, the loopback's own
// listener is there. Opened without it, it would take the port from a service
// that is yet to listen on all addresses; and such a service is reached at the
// gateway without a forwarder.
func (f *forward) listen(ctx context.Context) net.Listener {
	if !listening(f.target) {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", f.gateway.String())
	if err != nil {
		return nil // taken: by the service itself, on all addresses
	}
	return listener
}

func (f *forward) serve(ctx context.Context, listener net.Listener) {
	const look = 250 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		for listener == nil {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			listener = f.listen(ctx)
		}
		open := listener
		serving.Go(func() { f.accept(ctx, open) })
		for listening(f.target) && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
		_ = open.Close()
		listener = nil
	}
}

func (f *forward) accept(ctx context.Context, listener net.Listener) {
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		peer, err := netip.ParseAddrPort(from.RemoteAddr().String())
		if err != nil || !f.subnet.Contains(peer.Addr().Unmap()) {
			reset(from)
			continue
		}
		connections.Go(func() { f.carry(ctx, from) })
	}
}

// carry joins one connection with the loopback until both sides have finished.
func (f *forward) carry(ctx context.Context, from net.Conn) {
	to, err := new(net.Dialer).DialContext(ctx, "tcp4", f.target.String())
	if err != nil {
		reset(from)
		return
	}
	stop := context.AfterFunc(ctx, func() {
		_ = from.Close()
		_ = to.Close()
	})
	defer stop()
	var directions sync.WaitGroup
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		directions.Go(func() {
			_, err := io.Copy(pair[0], pair[1])
			if half, ok := pair[0].(*net.TCPConn); ok && err == nil {
				_ = half.CloseWrite()
				return
			}
			_ = from.Close()
			_ = to.Close()
		})
	}
	directions.Wait()
	_ = from.Close()
	_ = to.Close()
}

// reset closes so that the other side sees a refusal and not an empty answer.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// listening reports whether something listens at exactly this address, as
// proc_pid_net(5) tells it. A wildcard listener does not count. On systems
// without that file nothing listens.
func listening(address netip.AddrPort) bool {
	return inTable("/proc/net/tcp", address) || inTable("/proc/net/tcp6", address)
}

func inTable(path string, address netip.AddrPort) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return lists(f, address)
}

func lists(table io.Reader, address netip.AddrPort) bool {
	const listen = "0A"
	for lines := bufio.NewScanner(table); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != listen {
			continue
		}
		if local, ok := parseLocal(fields[1]); ok && local == address {
			return true
		}
	}
	return false
}

// parseLocal reads "0100007F:0BB8": words in the machine's order, port as is.
func parseLocal(text string) (netip.AddrPort, bool) {
	host, portText, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for at := 0; at < len(raw); at += 4 {
		binary.NativeEndian.PutUint32(raw[at:], binary.BigEndian.Uint32(raw[at:]))
	}
	address, ok := netip.AddrFromSlice(raw)
	port, err := strconv.ParseUint(portText, 16, 16)
	return netip.AddrPortFrom(address.Unmap(), uint16(port)), ok && err == nil
}
