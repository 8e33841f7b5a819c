package network

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// project is a directory for the sockets of one.
func project(t testing.TB) string {
	t.Helper()
	// Longer than the address of a socket holds.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	return dir
}

// freePort is a port of the host that nobody has and that no client is given:
// the namespace is ours alone.
func freePort(t testing.TB) int {
	t.Helper()
	port := 20000 + int(lastPort.Add(1))
	if port >= 32768 {
		t.Fatal("no ports are left below those of clients")
	}
	return port
}

var lastPort atomic.Int32

func at(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// wantError checks the name of an error that a container had.
func wantError(t testing.TB, err error, name string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("the error is %v, not %s", err, name)
	}
}

func TestContainerHasOneInterfaceAndAllItsPorts(t *testing.T) {
	web := start(t, Config{Name: "web", Dir: project(t)})
	seen := web.must(t, "settings")
	want := fmt.Sprintf("lo 65536 [127.0.0.1/8 ::1/128]\neth0 %d [10.0.2.15/24]", linkMTU)
	for line := range strings.Lines(want) {
		if !strings.Contains(seen, strings.TrimSpace(line)) {
			t.Errorf("the container sees %s, not %s", seen, line)
		}
	}
	web.must(t, "echo", ":80")
	web.must(t, "echo", "127.0.0.1:1")
	web.must(t, "exchange", "127.0.0.1:1", "1000")
}

func TestPublishedPort(t *testing.T) {
	port := freePort(t)
	web := start(t, Config{Name: "web", Dir: project(t), Ports: []Port{{port, 80}}})
	web.must(t, "echo", ":80")
	if _, err := exchangeBytes(at("127.0.0.1", port), "100000000"); err != nil {
		t.Error(err)
	}
	said, err := halfClose(at("127.0.0.1", port), "hello")
	if err != nil || said != "hello" {
		t.Errorf("the echo of hello is %q, %v", said, err)
	}
}

func TestPublishedPortOfAServerThatEndsFirst(t *testing.T) {
	port := freePort(t)
	web := start(t, Config{Name: "web", Dir: project(t), Ports: []Port{{port, 80}}})
	web.must(t, "greet", ":80", "hello")
	c, err := net.Dial("tcp", at("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	greeting := make([]byte, 5)
	if err := readFull(c, greeting); err != nil || string(greeting) != "hello" {
		t.Fatalf("%q, %v", greeting, err)
	}
	web.stop(t)
	if n, err := c.Read(greeting); !errors.Is(err, io.EOF) {
		t.Errorf("after the end of the container %d bytes, %v", n, err)
	}
}

// TestRefusedByTheContainer: a probe that waits a moment sees that nobody
// listens.
func TestRefusedByTheContainer(t *testing.T) {
	port := freePort(t)
	web := start(t, Config{Name: "web", Dir: project(t), Ports: []Port{{port, 80}}})
	var slowest time.Duration
	for range 20 {
		c, err := net.Dial("tcp", at("127.0.0.1", port))
		if errors.Is(err, syscall.ECONNRESET) {
			continue // told before connect had returned
		}
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, err = c.Read(make([]byte, 1))
		slowest = max(slowest, time.Since(begun))
		c.Close()
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("refused is %v", err)
		}
	}
	t.Logf("told after %v at most", slowest)
	web.must(t, "echo", ":80")
	if _, err := exchangeBytes(at("127.0.0.1", port), "10"); err != nil {
		t.Error(err)
	}
}

func TestResetIsPassedOn(t *testing.T) {
	port, other := freePort(t), freePort(t)
	web := start(t, Config{Name: "web", Dir: project(t), Ports: []Port{{port, 80}}, Reach: []int{other}})
	web.must(t, "drop", ":80")
	c, err := net.Dial("tcp", at("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a reset by the container is %v", err)
	}
	if err := serveDrop(at("127.0.0.1", other)); err != nil {
		t.Fatal(err)
	}
	_, err = web.try("half", at(Gateway, other), "x")
	wantError(t, err, "ECONNRESET")
}

func TestHTTP(t *testing.T) {
	port := freePort(t)
	start(t, Config{Name: "web", Dir: project(t), Ports: []Port{{port, 80}}}).must(t, "http", ":80")
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			body := bytes.Repeat([]byte{byte(i)}, 100_000)
			r, err := http.Post("http://"+at("127.0.0.1", port), "application/octet-stream", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			got, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
}

func TestPortThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, dir := l.Addr().(*net.TCPAddr).Port, project(t)
	free := freePort(t)
	_, err = Open(Config{Name: "web", Dir: dir, Ports: []Port{{free, 80}, {taken, 81}}})
	var portErr *PortError
	if !errors.As(err, &portErr) || portErr.Port != taken || !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("%v", err)
	}
	n, err := Open(Config{Name: "web", Dir: dir, Ports: []Port{{free, 80}}})
	if err != nil {
		t.Fatalf("what was opened before is left: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestServices(t *testing.T) {
	dir := project(t)
	db := start(t, Config{Name: "db", Dir: dir})
	resolver := nameServer(t, func(*dnsmessage.Message) {})
	web := start(t, Config{Name: "web", Dir: dir, Resolvers: []netip.AddrPort{resolver}})
	db.must(t, "echo", ":5432")
	db.must(t, "greet", ":25", "220 hello")
	web.must(t, "echo", ":80")

	address := web.must(t, "resolve", "udp", "ip4", "db")
	if ip, err := netip.ParseAddr(address); err != nil || !servicesNet.Contains(ip) {
		t.Fatalf("db is at %q", address)
	}
	for _, transport := range []string{"udp", "tcp"} {
		if again := web.must(t, "resolve", transport, "ip", "DB"); again != address {
			t.Errorf("over %s db is at %q, not %q", transport, again, address)
		}
	}
	if name := web.must(t, "resolve", "udp", "ptr", address); name != "db." {
		t.Errorf("%s is %q", address, name)
	}
	web.must(t, "exchange", address+":5432", "20000000")
	if said := web.must(t, "half", address+":25", "quit"); said != "220 hello" {
		t.Errorf("db says %q", said)
	}
	_, err := web.try("dial", address+":81")
	wantError(t, err, "ECONNREFUSED")

	own := web.must(t, "resolve", "udp", "ip4", "web")
	if own != Address {
		t.Errorf("the own name is at %q", own)
	}
	web.must(t, "exchange", own+":80", "1000")

	_, err = web.try("datagram", address+":53", "hello")
	wantError(t, err, "ECONNREFUSED")
	_, err = web.try("dial", "10.0.3.77:80")
	wantError(t, err, "EHOSTUNREACH")

	db.stop(t)
	_, err = web.try("resolve", "udp", "ip4", "db")
	wantError(t, err, "no such host")
	_, err = web.try("dial", address+":5432")
	wantError(t, err, "EHOSTUNREACH")
	db = start(t, Config{Name: "db", Dir: dir})
	db.must(t, "echo", ":5432")
	if again := web.must(t, "resolve", "udp", "ip4", "db"); again != address {
		t.Errorf("after a restart db is at %q, not %q", again, address)
	}
	web.must(t, "exchange", address+":5432", "1000")
}

func TestSocketOfAService(t *testing.T) {
	dir := project(t)
	web, err := Open(Config{Name: "web", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "web.sock")
	for file, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, path: os.ModeSocket | 0o600} {
		if info, err := os.Stat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	_, err = Open(Config{Name: "web", Dir: dir})
	var served *ServedError
	if !errors.As(err, &served) || served.Path != path {
		t.Errorf("a second run is %v", err)
	}
	// A crash closes the socket and leaves its file.
	web.project.SetUnlinkOnClose(false)
	if err := web.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	again, err := Open(Config{Name: "web", Dir: dir})
	if err != nil {
		t.Fatalf("a socket that nobody serves: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", path, err)
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Name: "web", Dir: dir}); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
		t.Errorf("a directory that others can enter: %v", err)
	}
	if _, err := Open(Config{Name: "../web", Dir: dir}); err == nil {
		t.Error("a name may climb out of the directory")
	}
}

// TestStrangerAtTheSocket: what is no request is closed, and soon.
func TestStrangerAtTheSocket(t *testing.T) {
	dir := project(t)
	web := start(t, Config{Name: "web", Dir: dir})
	web.must(t, "echo", ":80")
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, request := range []string{"GET / HTTP/1.1\r\n\r\n", "L\x02\x00\x50", ""} {
		c, err := net.Dial("unix", socketPath(d, "web"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(c, request)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(2 * requestLimit))
		if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q is answered with %d bytes, %v", request, n, err)
		}
		c.Close()
	}
}

func TestHostsLoopback(t *testing.T) {
	reached, hidden := freePort(t), freePort(t)
	for _, port := range []int{reached, hidden} {
		if err := serveEcho(at("127.0.0.1", port)); err != nil {
			t.Fatal(err)
		}
	}
	web := start(t, Config{Name: "web", Dir: project(t), Reach: []int{reached}})
	if ip := web.must(t, "resolve", "udp", "ip", HostName); ip != Gateway {
		t.Errorf("%s is at %q", HostName, ip)
	}
	web.must(t, "exchange", at(Gateway, reached), "20000000")
	for _, c := range []struct{ address, want string }{
		{at(Gateway, hidden), "ECONNREFUSED"},
		{at(NameServer, reached), "ECONNREFUSED"},
		{at("10.0.2.99", reached), "EHOSTUNREACH"},
	} {
		_, err := web.try("dial", c.address)
		wantError(t, err, c.want)
	}
	_, err := web.try("datagram", at(Gateway, reached), "hello")
	wantError(t, err, "ECONNREFUSED")
	for _, address := range []string{"127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", Gateway, Address, NameServer, "10.0.3.9"} {
		if isOutside(netip.MustParseAddr(address)) {
			t.Errorf("%s is outside", address)
		}
	}
}

func TestOutside(t *testing.T) {
	l, err := net.Listen("tcp4", outsideIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	port := freePort(t)
	if err := serveEcho(at(outsideIP, port)); err != nil {
		t.Fatal(err)
	}
	web := start(t, Config{Name: "web", Dir: project(t)})
	web.must(t, "exchange", at(outsideIP, port), "100000000")
	if said := web.must(t, "half", at(outsideIP, port), "hello"); said != "hello" {
		t.Errorf("the echo of hello is %q", said)
	}
	for _, c := range []struct{ address, want string }{
		{closed, "ECONNREFUSED"},
		{unreachableIP + ":80", "EHOSTUNREACH"},
		{nowhereIP + ":80", "ENETUNREACH"},
	} {
		_, err := web.try("dial", c.address)
		wantError(t, err, c.want)
		if err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v", c.address, err)
		}
	}
}

func TestDatagrams(t *testing.T) {
	c, err := net.ListenPacket("udp4", outsideIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
	web := start(t, Config{Name: "web", Dir: project(t)})
	if said := web.must(t, "datagram", c.LocalAddr().String(), "hello"); said != "hello" {
		t.Errorf("the echo of hello is %q", said)
	}
	// The largest that there is.
	if said := web.must(t, "datagram", c.LocalAddr().String(), "65507"); len(said) != 65507 {
		t.Errorf("%d of 65507 bytes", len(said))
	}
	_, err = web.try("datagram", outsideIP+":9", "hello")
	wantError(t, err, "ECONNREFUSED")
}

// TestDatagramsBetweenServices: of all sizes, and an end that is told.
func TestDatagramsBetweenServices(t *testing.T) {
	dir := project(t)
	stats := start(t, Config{Name: "stats", Dir: dir})
	web := start(t, Config{Name: "web", Dir: dir})
	stats.must(t, "mirror", ":8125")
	address := web.must(t, "resolve", "udp", "ip4", "stats")
	if said := web.must(t, "datagram", address+":8125", "hello"); said != "hello" {
		t.Errorf("the echo of hello is %q", said)
	}
	if said := web.must(t, "datagram", address+":8125", ""); said != "nothing" {
		t.Errorf("for an empty one %q came", said)
	}
	if said := web.must(t, "datagram", address+":8125", "65507"); len(said) != 65507 {
		t.Errorf("%d of 65507 bytes", len(said))
	}
	_, err := web.try("datagram", address+":53", "hello")
	wantError(t, err, "ECONNREFUSED")
	_, err = web.try("datagram", "10.0.3.77:53", "hello")
	wantError(t, err, "ECONNREFUSED")

	stats.stop(t)
	_, err = web.try("datagram", address+":8125", "hello")
	wantError(t, err, "ECONNREFUSED")
	stats = start(t, Config{Name: "stats", Dir: dir})
	stats.must(t, "mirror", ":8125")
	if said := web.must(t, "datagram", address+":8125", "again"); said != "again" {
		t.Errorf("after a restart the echo of again is %q", said)
	}
}

func TestPing(t *testing.T) {
	web := start(t, Config{Name: "web", Dir: project(t)})
	for _, address := range []string{Gateway, NameServer} {
		if from := web.must(t, "ping", address); from != address {
			t.Errorf("%s is answered by %s", address, from)
		}
	}
	if from, err := web.try("ping", nowhereIP); err == nil {
		t.Errorf("%s is answered by %s", nowhereIP, from)
	}
}

// nameServer is a resolver of the host that knows one name. What it answers is
// up to change.
func nameServer(t *testing.T, change func(*dnsmessage.Message)) netip.AddrPort {
	t.Helper()
	datagrams, err := net.ListenPacket("udp4", at("127.0.0.1", freePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { datagrams.Close() })
	address := datagrams.LocalAddr().(*net.UDPAddr).AddrPort()
	l, err := net.Listen("tcp4", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	answer := func(query []byte) []byte {
		var m dnsmessage.Message
		if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
			return nil
		}
		q := m.Questions[0]
		m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
		switch {
		case q.Name.String() != "example.test.":
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 80}},
			}}
		case q.Type == dnsmessage.TypeAAAA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::80").As16()},
			}}
		}
		change(&m)
		reply, err := m.Pack()
		if err != nil {
			return nil
		}
		return reply
	}
	go func() {
		buf := make([]byte, dnsMaxSize)
		for {
			n, from, err := datagrams.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := answer(buf[:n]); reply != nil {
				_, _ = datagrams.WriteTo(reply, from)
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if query, err := readMessage(c, make([]byte, dnsMaxSize)); err == nil {
				_ = writeMessage(c, answer(query))
			}
			c.Close()
		}
	}()
	return address
}

func TestForeignNames(t *testing.T) {
	good := nameServer(t, func(*dnsmessage.Message) {})
	broken := nameServer(t, func(m *dnsmessage.Message) { m.RCode, m.Answers = dnsmessage.RCodeServerFailure, nil })
	truncating := nameServer(t, func(m *dnsmessage.Message) { m.Truncated, m.Answers = true, nil })
	// Nobody answers here, and nobody is here.
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	mute := silent.LocalAddr().(*net.UDPAddr).AddrPort()
	absent := netip.AddrPortFrom(mute.Addr(), uint16(freePort(t)))

	for name, servers := range map[string][]netip.AddrPort{
		"one":           {good},
		"first mute":    {mute, good},
		"first absent":  {absent, good},
		"first broken":  {broken, good},
		"all but one":   {broken, absent, mute, good},
		"one of two":    {good, mute},
		"two are there": {good, good},
	} {
		t.Run(name, func(t *testing.T) {
			web := start(t, Config{Name: "web", Dir: project(t), Resolvers: servers})
			for _, transport := range []string{"udp", "tcp"} {
				begun := time.Now()
				if ip := web.must(t, "resolve", transport, "ip4", "example.test"); ip != "192.0.2.80" {
					t.Errorf("over %s it is at %q", transport, ip)
				}
				t.Logf("%s: %v", transport, time.Since(begun))
			}
			if ip := web.must(t, "resolve", "udp", "ip6", "example.test"); ip != "2001:db8::80" {
				t.Errorf("its IPv6 address is %q", ip)
			}
			_, err := web.try("resolve", "udp", "ip4", "other.test")
			wantError(t, err, "no such host")
			if ip := web.must(t, "resolve", "udp", "ip4", HostName); ip != Gateway {
				t.Errorf("%s is at %q", HostName, ip)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		web := start(t, Config{Name: "web", Dir: project(t), Resolvers: []netip.AddrPort{broken, absent}})
		_, err := web.try("resolve", "udp", "ip4", "example.test")
		wantError(t, err, "server misbehaving")
	})
	t.Run("truncated", func(t *testing.T) {
		web := start(t, Config{Name: "web", Dir: project(t), Resolvers: []netip.AddrPort{truncating}})
		query, err := (&dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("example.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}).Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply, err := hex.DecodeString(web.must(t, "query", hex.EncodeToString(query)))
		if err != nil {
			t.Fatal(err)
		}
		var m dnsmessage.Message
		if err := m.Unpack(reply); err != nil || !m.Truncated || m.ID != 7 {
			t.Errorf("%+v, %v", m, err)
		}
	})
}

// TestClose: nothing is left of a network that had connections of all kinds.
func TestClose(t *testing.T) {
	before := goroutines()
	port, reach, dir := freePort(t), freePort(t), project(t)
	if err := serveEcho(at("127.0.0.1", reach)); err != nil {
		t.Fatal(err)
	}
	db := start(t, Config{Name: "db", Dir: dir})
	web := start(t, Config{Name: "web", Dir: dir, Ports: []Port{{port, 80}}, Reach: []int{reach}})
	db.must(t, "echo", ":5432")
	web.must(t, "echo", ":80")
	address := web.must(t, "resolve", "udp", "ip4", "db")
	web.must(t, "hold", address+":5432", "10")
	web.must(t, "hold", at(Gateway, reach), "10")
	_, _ = web.try("datagram", outsideIP+":9", "hello")
	client, err := net.Dial("tcp", at("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := io.WriteString(client, "x"); err != nil {
		t.Fatal(err)
	}
	if err := readFull(client, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := web.network.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("closed after %v", time.Since(begun))
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("a connection is left")
	}
	if _, err := net.Dial("tcp", at("127.0.0.1", port)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the port is still there: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "web.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	web.stop(t)
	db.stop(t)
	if left := goroutines(); left != before {
		t.Errorf("goroutines are left:\n%s", left)
	}
}

// goroutines are those of this room and of the stack.
func goroutines() string {
	all := make([]byte, 1<<20)
	all = all[:goruntime.Stack(all, true)]
	var ours []string
	for g := range strings.SplitSeq(string(all), "\n\n") {
		if strings.Contains(g, "_test.go") || strings.Contains(g, "testing.") {
			continue
		}
		if strings.Contains(g, "internal/network") || strings.Contains(g, "gvisor.dev") {
			ours = append(ours, g)
		}
	}
	return strings.Join(ours, "\n\n")
}

// TestLastWords: what a program sent before its container ended arrives.
func TestLastWords(t *testing.T) {
	const size = 3 << 20
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, c)
		got <- n
	}()
	web := start(t, Config{Name: "web", Dir: project(t), Reach: []int{port}})
	web.must(t, "last", at(Gateway, port), strconv.Itoa(size))
	web.stop(t)
	if n := <-got; n != size {
		t.Errorf("%d of %d bytes", n, size)
	}
}

func TestManyConnections(t *testing.T) {
	port := freePort(t)
	web := start(t, Config{Name: "web", Dir: project(t), Ports: []Port{{port, 80}}})
	web.must(t, "echo", ":80")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if said, err := halfClose(at("127.0.0.1", port), "hello"); err != nil || said != "hello" {
					t.Errorf("%q, %v", said, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestResolvConf(t *testing.T) {
	servers, search := parseResolvConf("# by hand\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver\ndomain one.test\nsearch a.test b.test\noptions edns0\n")
	want := "[192.0.2.53:53 [fe80::1%eth0]:53] [a.test b.test]"
	if got := fmt.Sprint(servers, " ", search); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if text := ResolvConf(); !strings.HasPrefix(text, "nameserver 10.0.2.3\n") || !strings.HasSuffix(text, "options ndots:0\n") {
		t.Errorf("%q", text)
	}
}
