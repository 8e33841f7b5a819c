package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// A request is a message of rtnetlink that is being written.
type request []byte

// newRequest begins a message with its family's header, which is body.
func newRequest(kind, flags uint16, body []byte) request {
	r := make(request, unix.SizeofNlMsghdr, 256)
	binary.NativeEndian.PutUint16(r[4:], kind)
	binary.NativeEndian.PutUint16(r[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	return append(r, body...)
}

// attribute appends an attribute.
func (r request) attribute(kind uint16, value []byte) request {
	r = binary.NativeEndian.AppendUint16(r, uint16(unix.SizeofRtAttr+len(value)))
	r = append(binary.NativeEndian.AppendUint16(r, kind), value...)
	return append(r, make([]byte, -len(r)&3)...)
}

// nested appends an attribute that fill writes attributes, or a header, into.
func (r request) nested(kind uint16, fill func(request) request) request {
	begin := len(r)
	r = fill(r.attribute(kind, nil))
	binary.NativeEndian.PutUint16(r[begin:], uint16(len(r)-begin))
	return r
}

// interfaceHeader is a struct ifinfomsg.
func interfaceHeader(index int, flags uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], flags) // change these only
	return b
}

// A netlink is a socket to the kernel's routing, of the network namespace that
// it was made in.
type netlink struct{ fd int }

func dialNetlink() (netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return netlink{}, fmt.Errorf("netlink: %w", err)
	}
	return netlink{fd}, nil
}

func (n netlink) close() { unix.Close(n.fd) }

// do sends a request and waits for the kernel to carry it out.
func (n netlink) do(r request) error {
	binary.NativeEndian.PutUint32(r, uint32(len(r)))
	if err := unix.Sendto(n.fd, r, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		got, _, err := unix.Recvfrom(n.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case got < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR:
			return io.ErrUnexpectedEOF
		}
		if errno := -int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])); errno != 0 {
			return unix.Errno(errno)
		}
		return nil
	}
}

// pair makes two connected interfaces. What is sent on one arrives at the other.
func (n netlink) pair(name, peer string, address []byte) error {
	mtu := binary.NativeEndian.AppendUint32(nil, linkMTU)
	return n.do(newRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, interfaceHeader(0, 0)).
		attribute(unix.IFLA_IFNAME, []byte(name+"\x00")).
		attribute(unix.IFLA_MTU, mtu).
		attribute(unix.IFLA_ADDRESS, address).
		nested(unix.IFLA_LINKINFO, func(r request) request {
			return r.attribute(unix.IFLA_INFO_KIND, []byte("veth")).
				nested(unix.IFLA_INFO_DATA, func(r request) request {
					return r.nested(vethPeer, func(r request) request {
						return append(r, interfaceHeader(0, 0)...).
							attribute(unix.IFLA_IFNAME, []byte(peer+"\x00")).
							attribute(unix.IFLA_MTU, mtu)
					})
				})
		}))
}

// vethPeer is VETH_INFO_PEER of linux/veth.h.
const vethPeer = 1

// set sets flags of an interface.
func (n netlink) set(index int, flags uint32) error {
	return n.do(newRequest(unix.RTM_NEWLINK, 0, interfaceHeader(index, flags)))
}

// address gives an interface an IPv4 address.
func (n netlink) address(index int, ip [4]byte, bits byte) error {
	header := []byte{unix.AF_INET, bits, 0, unix.RT_SCOPE_UNIVERSE}
	header = binary.NativeEndian.AppendUint32(header, uint32(index))
	return n.do(newRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, header).
		attribute(unix.IFA_LOCAL, ip[:]).
		attribute(unix.IFA_ADDRESS, ip[:]))
}

// route sends everything that has no route of its own to a gateway.
func (n netlink) route(index int, gateway [4]byte) error {
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[4], header[5], header[7] = unix.AF_INET, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RTN_UNICAST
	return n.do(newRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, header).
		attribute(unix.RTA_GATEWAY, gateway[:]).
		attribute(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index))))
}
