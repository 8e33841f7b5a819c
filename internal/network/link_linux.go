package network

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// frameSize holds an Ethernet header and a packet. It is the largest piece of
// memory that the stack's buffers use again.
const frameSize = header.EthernetMinimumSize + linkMTU

// A link is the packet socket of Attach as the stack's only link. The stack's
// own one for descriptors (link/fdbased) drops what it cannot send at once and
// keeps a thread waiting; this one lets the sender wait and uses the runtime's
// poller. Neither end asks for the other's Ethernet address.
type link struct {
	file *os.File
	conn syscall.RawConn
	up   sync.WaitGroup
	down chan struct{} // closed when nothing more is read
	err  error         // why, before that

	mu         sync.Mutex
	dispatcher stack.NetworkDispatcher
}

// newLink takes over file.
func newLink(file *os.File) (*link, error) {
	defer file.Close()
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	// Whether file waits in the poller depends on how its caller got it.
	var fd int
	var dupErr error
	if err := conn.Control(func(of uintptr) { fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, dupErr
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	l := &link{file: os.NewFile(uintptr(fd), file.Name()), down: make(chan struct{})}
	if l.conn, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

// read hands every packet to the stack until the link is closed or fails.
func (l *link) read(to stack.NetworkDispatcher) {
	defer close(l.down)
	frame := buffer.NewViewSize(frameSize)
	for {
		n, err := l.file.Read(frame.AsSlice())
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				l.err = err
			}
			return
		}
		var packet *buffer.View
		if n > frameSize/2 {
			frame.CapLength(n)
			packet, frame = frame, buffer.NewViewSize(frameSize)
		} else { // copied, so that it does not occupy a whole frame while it waits to be read
			packet = buffer.NewViewWithData(frame.AsSlice()[:n])
		}
		l.deliver(to, packet)
	}
}

func (l *link) deliver(to stack.NetworkDispatcher, packet *buffer.View) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(packet)})
	defer pkt.DecRef()
	if l.ParseHeader(pkt) {
		to.DeliverNetworkPacket(header.IPv4ProtocolNumber, pkt)
	}
}

// close ends reading and writing, and waits for the reader.
func (l *link) close() {
	l.file.Close()
	l.up.Wait()
}

// WritePackets sends packets, and waits while the kernel has too many of ours.
func (l *link) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range list.AsSlice() {
		slices := pkt.AsSlices()
		var sendErr error
		err := l.conn.Write(func(fd uintptr) bool {
			for {
				_, sendErr = unix.Writev(int(fd), slices)
				if !errors.Is(sendErr, unix.EINTR) {
					return !errors.Is(sendErr, unix.EAGAIN)
				}
			}
		})
		if err := errors.Join(err, sendErr); err != nil {
			return i, &tcpip.ErrNoBufferSpace{} // lost, as on any network
		}
	}
	return list.Len(), nil
}

// start begins to read for the stack that the link was attached to.
func (l *link) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := l.dispatcher
	l.up.Go(func() { l.read(to) })
}

// Attach is called by the stack that the link becomes part of, and with nil
// when it no longer is.
func (l *link) Attach(to stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = to
}

// IsAttached says whether the link is part of a stack.
func (l *link) IsAttached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dispatcher != nil
}

// AddHeader puts an Ethernet header before a packet.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: l.LinkAddress(),
		DstAddr: l.LinkAddress(),
		Type:    header.IPv4ProtocolNumber,
	})
}

// ParseHeader takes the Ethernet header off. What is not for eth0's only
// neighbour is none of ours: a broadcast, or a packet that the kernel forwards.
func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	h, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	return ok && bytes.Equal(h[:len(linkAddress)], linkAddress[:])
}

// Capabilities says that what arrives has no checksums yet: it has never been
// on a wire.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// MTU is the same at both ends.
func (l *link) MTU() uint32 { return linkMTU }

// SetMTU does nothing: the other end would not know.
func (l *link) SetMTU(uint32) {}

// MaxHeaderLength is that of Ethernet.
func (l *link) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress is that of both ends.
func (l *link) LinkAddress() tcpip.LinkAddress { return tcpip.LinkAddress(linkAddress[:]) }

// SetLinkAddress does nothing: the other end would not know.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType is that of Ethernet, though nobody asks.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// Wait does not wait: the reader was ended by close, before the stack was.
func (l *link) Wait() {}

// Close does nothing, for the same reason.
func (l *link) Close() {}

// SetOnCloseAction does nothing.
func (l *link) SetOnCloseAction(func()) {}
