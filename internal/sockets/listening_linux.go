package sockets

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// From linux/inet_diag.h and linux/sock_diag.h.
const (
	diagRequestSize = 60
	diagMessageSize = 72
	stateListen     = 10

	// getSockets (TCPDIAG_GETSOCK) is of both families. To look through the
	// kernel's table takes as long for one, and there is no newer name for both.
	getSockets = 18
)

// Listening returns the TCP sockets in this network namespace that are listened
// on, IPv4 and IPv6.
func Listening() ([]Socket, error) {
	list, err := diagnose()
	if err == nil {
		return list, nil
	}
	// Sandboxes such as gVisor have no socket diagnosis.
	list, fileErr := listeningFiles()
	if fileErr != nil {
		return nil, errors.Join(err, fileErr)
	}
	return list, nil
}

// diagnose asks the kernel for a dump over netlink.
func diagnose() ([]Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("socket diagnosis: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return nil, fmt.Errorf("socket diagnosis: %w", err)
	}
	list, err := dump(fd)
	if err != nil {
		return nil, fmt.Errorf("socket diagnosis: %w", err)
	}
	return list, nil
}

func dump(fd int) (list []Socket, err error) {
	request := make([]byte, unix.SizeofNlMsghdr+diagRequestSize)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], getSockets)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := request[unix.SizeofNlMsghdr:]
	body[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(body[52:], 1<<stateListen)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var done bool
		if list, done, err = messages(buf[:n], list); done || err != nil {
			return list, err
		}
	}
}

// messages reads the netlink messages of one datagram.
func messages(b []byte, list []Socket) (_ []Socket, done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return nil, false, io.ErrUnexpectedEOF
		}
		body := b[unix.SizeofNlMsghdr:length]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return list, true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return nil, false, io.ErrUnexpectedEOF
			}
			return nil, false, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
		case getSockets:
			if s, ok := message(body); ok {
				list = append(list, s)
			}
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return list, false, nil
}

// message reads an inet_diag_msg.
func message(b []byte) (s Socket, ok bool) {
	if len(b) < diagMessageSize || b[1] != stateListen {
		return s, false
	}
	var addr netip.Addr
	switch b[0] {
	case unix.AF_INET:
		addr = netip.AddrFrom4([4]byte(b[8:]))
	case unix.AF_INET6:
		addr = netip.AddrFrom16([16]byte(b[8:])).Unmap()
	default:
		return s, false
	}
	return Socket{
		Addr:  netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[4:])),
		UID:   int(binary.NativeEndian.Uint32(b[64:])),
		Inode: uint64(binary.NativeEndian.Uint32(b[68:])),
	}, true
}

func listeningFiles() ([]Socket, error) {
	var list []Socket
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) && path != "/proc/net/tcp" {
			continue // no IPv6
		}
		if err != nil {
			return nil, err
		}
		list = append(list, parseTable(f)...)
		f.Close()
	}
	return list, nil
}

// parseTable reads a table of /proc/net, as described in proc_net_tcp.txt of
// the kernel's documentation. Lines that are not understood are passed over.
func parseTable(r io.Reader) []Socket {
	var list []Socket
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != "0A" {
			continue
		}
		addr, ok := parseAddr(fields[1])
		uid, err1 := strconv.Atoi(fields[7])
		inode, err2 := strconv.ParseUint(fields[9], 10, 64)
		if ok && err1 == nil && err2 == nil {
			list = append(list, Socket{Addr: addr, UID: uid, Inode: inode})
		}
	}
	return list
}

// parseAddr reads "0100007F:1F90": 32-bit words in the byte order of the
// machine, and a port.
func parseAddr(text string) (a netip.AddrPort, ok bool) {
	host, number, _ := strings.Cut(text, ":")
	words, err := hex.DecodeString(host)
	if err != nil || len(words)%4 != 0 {
		return a, false
	}
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	addr, ok := netip.AddrFromSlice(words)
	port, err := strconv.ParseUint(number, 16, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok && err == nil
}

// Inodes returns the numbers of the sockets that a process has open. A process
// that is gone is an error that matches fs.ErrNotExist, one of another user
// one that matches fs.ErrPermission.
func Inodes(pid int) (map[uint64]bool, error) {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	inodes := map[uint64]bool{}
	var target [64]byte
	for _, name := range names {
		n, err := unix.Readlinkat(int(dir.Fd()), name, target[:])
		if err != nil {
			continue // closed in between
		}
		number, ok := bytes.CutPrefix(target[:n], []byte("socket:["))
		if !ok {
			continue
		}
		if inode, err := strconv.ParseUint(strings.TrimSuffix(string(number), "]"), 10, 64); err == nil {
			inodes[inode] = true
		}
	}
	return inodes, nil
}

// HolderOf tells who listens on a TCP port of this host, on whatever address.
// ok is false when nobody does, or nothing is known. It looks through all
// processes: it is made for error messages.
func HolderOf(port int) (h Holder, ok bool) {
	list, err := Listening()
	if err != nil {
		return h, false
	}
	wanted := map[uint64]bool{}
	for _, s := range list {
		if int(s.Addr.Port()) == port {
			wanted[s.Inode] = true
			h, ok = Holder{UID: s.UID}, true
		}
	}
	if !ok {
		return h, false
	}
	for _, pid := range processes() {
		inodes, err := Inodes(pid)
		if err != nil {
			continue
		}
		for inode := range inodes {
			if wanted[inode] {
				h.PID, h.Command = pid, command(pid)
				return h, true
			}
		}
	}
	return h, true
}

// processes lists all processes, lowest number first, so that of a server and
// the workers that share its socket the server is found.
func processes() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var list []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list
}

func command(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}
