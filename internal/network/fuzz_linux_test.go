package network

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// FuzzQuery reads what a container may send to the name server. What is
// answered is a response to the same question that a resolver can read, and
// addresses are given to names that are there alone.
func FuzzQuery(f *testing.F) {
	for _, name := range []string{"db.", "DB.", "web.", "host.docker.internal.", "2.2.0.10.in-addr.arpa.", "9.3.0.10.in-addr.arpa.", "1.in-addr.arpa.", "example.test.", "/db.", "."} {
		for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypePTR} {
			query, err := (&dnsmessage.Message{
				Header:    dnsmessage.Header{ID: 4242, RecursionDesired: true},
				Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
			}).Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(query)
		}
	}
	f.Add([]byte{})
	dir := f.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "db.sock"))
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	d, err := os.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	defer d.Close()
	f.Fuzz(func(t *testing.T, query []byte) {
		n := newNames("web", d)
		answer, isQuery := n.answer(query)
		if len(n.address) > 1 || len(n.address) == 1 && n.address["db"] != servicesNet.Addr().Next() {
			t.Errorf("addresses: %v", n.address)
		}
		if answer == nil {
			answer = failed(query)
			if isQuery && answer == nil {
				t.Error("a query is not answered")
			}
			if answer == nil {
				return
			}
		}
		var asked dnsmessage.Parser
		h, err := asked.Start(query)
		if err != nil {
			t.Fatalf("%x is no message, and is answered", query)
		}
		q, err := asked.Question()
		if err != nil {
			t.Fatalf("%x has no question, and is answered", query)
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("the answer %x: %v", answer, err)
		}
		if !m.Response || m.ID != h.ID || len(m.Questions) != 1 || m.Questions[0] != q {
			t.Errorf("%+v is answered by %+v", q, m)
		}
	})
}

// FuzzResolvConf reads a host's resolv.conf. What comes of it stands in it.
func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch a b\n")
	f.Add("nameserver fe80::1%eth0\r\n;nameserver 1.1.1.1\ndomain x")
	f.Fuzz(func(t *testing.T, text string) {
		servers, search := parseResolvConf(text)
		if len(servers) > strings.Count(text, "nameserver") {
			t.Errorf("%v in %q", servers, text)
		}
		for _, s := range search {
			if !strings.Contains(text, s) || strings.ContainsAny(s, " \n") {
				t.Errorf("%q in %q", s, text)
			}
		}
	})
}

// FuzzReverseName reads names of addresses.
func FuzzReverseName(f *testing.F) {
	f.Add("15.2.0.10.in-addr.arpa")
	f.Add("::1.in-addr.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		ip, ok := reverseName(name)
		if !ok {
			return
		}
		b := ip.As4()
		if back := netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}).String() + ".in-addr.arpa"; back != name {
			t.Errorf("%q is %v", name, ip)
		}
	})
}
