package sockets

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func listen(t *testing.T, network, addr string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Skipf("%s %s: %v", network, addr, err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func find(list []Socket, addr netip.AddrPort) (Socket, bool) {
	for _, s := range list {
		if s.Addr == addr {
			return s, true
		}
	}
	return Socket{}, false
}

func TestListenersAreFoundWithTheirInode(t *testing.T) {
	t.Parallel()
	for _, at := range []struct{ network, addr string }{{"tcp4", "127.0.0.1:0"}, {"tcp4", "0.0.0.0:0"}, {"tcp6", "[::1]:0"}, {"tcp6", "[::]:0"}} {
		t.Run(at.addr, func(t *testing.T) {
			t.Parallel()
			addr := listen(t, at.network, at.addr)
			inodes, err := Inodes(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			for name, ask := range map[string]func() ([]Socket, error){"netlink": diagnose, "files": listeningFiles, "exported": Listening} {
				list, err := ask()
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				s, ok := find(list, addr)
				if !ok || s.UID != os.Getuid() || !inodes[s.Inode] {
					t.Errorf("%s: %v is %+v, %v", name, addr, s, ok)
				}
			}
		})
	}
}

func TestConnectionsAreNotListeners(t *testing.T) {
	t.Parallel()
	addr := listen(t, "tcp4", "127.0.0.1:0")
	conn, err := net.Dial("tcp4", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	list, err := Listening()
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := find(list, conn.LocalAddr().(*net.TCPAddr).AddrPort()); ok {
		t.Errorf("%+v is a connection", s)
	}
}

func TestHolderIsNamed(t *testing.T) {
	t.Parallel()
	addr := listen(t, "tcp4", "127.0.0.1:0")
	h, ok := HolderOf(int(addr.Port()))
	if !ok || h.PID != os.Getpid() || h.Command == "" || !strings.HasSuffix(h.String(), ")") {
		t.Errorf("holder of %d is %q, %v", addr.Port(), h, ok)
	}
	if got := (Holder{UID: 0}).String(); got != "a process of user root" {
		t.Errorf("a hidden holder is %q", got)
	}
	if h, ok := HolderOf(1); ok {
		t.Errorf("port 1 is held by %v", h)
	}
}

func TestInodesOfAProcessThatIsGone(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := Inodes(cmd.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestTableOfProc(t *testing.T) {
	t.Parallel()
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F91 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 0000000000000000 20 4 30 10 -1
   2: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1 0
   3: zz:0BB8 0:0 0A 0 0 0 0 0 0
`
	list := parseTable(strings.NewReader(table))
	if len(list) != 2 || list[0] != (Socket{netip.MustParseAddrPort("127.0.0.1:8080"), 4242, 1000}) || list[1] != (Socket{netip.MustParseAddrPort("[::1]:3000"), 77, 0}) {
		t.Errorf("got %+v", list)
	}
}

func BenchmarkListening(b *testing.B) {
	for b.Loop() {
		if _, err := Listening(); err != nil {
			b.Fatal(err)
		}
	}
}
