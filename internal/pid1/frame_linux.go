package pid1

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxFrame is far above what an environment and a command line may have, and
// mostFiles above what any frame brings.
const (
	maxFrame  = 16 << 20
	mostFiles = 8
)

// connection sends and receives values with descriptors beside them. One
// goroutine may send while another receives.
type connection struct{ *net.UnixConn }

func connectionOf(f *os.File) (connection, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return connection{}, fmt.Errorf("descriptor %s: %w", f.Name(), err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return connection{}, fmt.Errorf("descriptor %s: not a Unix socket", f.Name())
	}
	return connection{u}, nil
}

// send writes one frame. The descriptors travel with its first bytes.
func (c connection) send(v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fmt.Errorf("frame of %d bytes: at most %d", len(body), maxFrame)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	frame = append(frame, body...)
	n, _, err := c.WriteMsgUnix(frame, rights, nil)
	if err == nil && n < len(frame) {
		_, err = c.Write(frame[n:])
	}
	return err
}

// receive reads one frame and returns the descriptors that came with it, which
// are the caller's.
func (c connection) receive(v any) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	var head [4]byte
	for got := 0; got < len(head); {
		oob := make([]byte, unix.CmsgSpace(4*mostFiles))
		n, oobn, _, _, err := c.ReadMsgUnix(head[got:], oob)
		files = append(files, rightsOf(oob[:oobn])...)
		if err != nil {
			return files, err
		}
		if n == 0 {
			return files, io.EOF
		}
		got += n
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return files, fmt.Errorf("frame of %d bytes: at most %d", size, maxFrame)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return files, err
	}
	return files, json.Unmarshal(body, v)
}

func rightsOf(oob []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
