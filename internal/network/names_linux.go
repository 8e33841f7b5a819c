package network

import (
	"net/netip"
	"os"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// nameTTL is short because a service may stop; its address does not change.
const nameTTL = 5

// names are those of the project, as this container sees them.
type names struct {
	own string
	dir *os.File

	mu       sync.Mutex
	address  map[string]netip.Addr
	services map[netip.Addr]string
}

func newNames(own string, dir *os.File) *names {
	return &names{own: own, dir: dir, address: map[string]netip.Addr{}, services: map[netip.Addr]string{}}
}

// lookup finds the address of a name of the project: of a service that is
// there. It keeps its address when it goes and comes back.
func (n *names) lookup(name string) (netip.Addr, bool) {
	switch {
	case name == HostName:
		return gatewayIP, true
	case name == n.own:
		return containerIP, true
	case !isName(name):
		return netip.Addr{}, false
	}
	if _, err := os.Lstat(socketPath(n.dir, name)); err != nil {
		return netip.Addr{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	address, known := n.address[name]
	if !known {
		address = servicesNet.Addr().Next()
		for range n.services {
			address = address.Next()
		}
		if !servicesNet.Contains(address.Next()) { // the last one is for broadcasts
			return netip.Addr{}, false
		}
		n.address[name], n.services[address] = address, name
	}
	return address, true
}

// service is the name that has an address.
func (n *names) service(address netip.Addr) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, known := n.services[address]
	return name, known
}

// reverse is the name of an address, and whether the address is one of ours.
func (n *names) reverse(address netip.Addr) (name string, ours bool) {
	switch address {
	case gatewayIP:
		return HostName, true
	case containerIP:
		return n.own, true
	}
	name, _ = n.service(address)
	return name, subnet.Contains(address) || servicesNet.Contains(address)
}

// answer replies to a query for a name or an address of the project. For any
// other, reply is nil. For what is no query ok is false.
func (n *names) answer(query []byte) (reply []byte, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil, false
	}
	q, err := p.Question()
	if err != nil {
		return nil, false
	}
	if q.Class != dnsmessage.ClassINET || h.OpCode != 0 {
		return nil, true
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	resource := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: nameTTL}
	if address, isReverse := reverseName(name); isReverse {
		is, ours := n.reverse(address)
		if !ours {
			return nil, true
		}
		pointer, err := dnsmessage.NewName(is + ".")
		if is == "" || err != nil {
			return respond(h, q, dnsmessage.RCodeNameError, nil), true
		}
		return respond(h, q, dnsmessage.RCodeSuccess, func(b *dnsmessage.Builder) error {
			if q.Type != dnsmessage.TypePTR {
				return nil
			}
			return b.PTRResource(resource, dnsmessage.PTRResource{PTR: pointer})
		}), true
	}
	address, there := n.lookup(name)
	if !there {
		return nil, true
	}
	return respond(h, q, dnsmessage.RCodeSuccess, func(b *dnsmessage.Builder) error {
		if q.Type != dnsmessage.TypeA {
			return nil // there is the name, without an address of that type
		}
		return b.AResource(resource, dnsmessage.AResource{A: address.As4()})
	}), true
}

// failed replies that no resolver has answered.
func failed(query []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	return respond(h, q, dnsmessage.RCodeServerFailure, nil)
}

func respond(h dnsmessage.Header, q dnsmessage.Question, code dnsmessage.RCode, answers func(*dnsmessage.Builder) error) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true, RCode: code,
	})
	err := b.StartQuestions()
	if err == nil {
		err = b.Question(q)
	}
	if err == nil && answers != nil {
		if err = b.StartAnswers(); err == nil {
			err = answers(&b)
		}
	}
	reply, finishErr := b.Finish()
	if err != nil || finishErr != nil {
		return nil
	}
	return reply
}

// reverseName reads 15.2.0.10.in-addr.arpa as 10.0.2.15.
func reverseName(name string) (netip.Addr, bool) {
	digits, isReverse := strings.CutSuffix(name, ".in-addr.arpa")
	if !isReverse {
		return netip.Addr{}, false
	}
	backwards, err := netip.ParseAddr(digits)
	if err != nil || !backwards.Is4() {
		return netip.Addr{}, false
	}
	b := backwards.As4()
	return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}), true
}
