// Package wire sends JSON in frames, with file descriptors, over one end of a
// socket pair: what two of our own processes say to each other.
//
// A frame is its length in four bytes, the highest first, and then the JSON.
// Nobody else reads it, and both ends are of one version.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Max is how long a frame may be: far above what an environment and a command
// line may have.
const Max = 32 << 20

// Conn is one end. Sending is safe from many goroutines, receiving is for one.
type Conn struct {
	conn *net.UnixConn

	sending sync.Mutex

	in    []byte // received and not yet taken
	chunk []byte
	oob   []byte
	files []int // received and not yet taken
}

// New takes over a connection.
func New(conn *net.UnixConn) *Conn {
	return &Conn{conn: conn, chunk: make([]byte, 32<<10), oob: make([]byte, unix.CmsgSpace(16*4))}
}

// Close closes the connection, and what was received and not taken.
func (c *Conn) Close() error { return c.conn.Close() }

// CloseWrite ends what this end says. The other end's last words still come.
func (c *Conn) CloseWrite() error { return c.conn.CloseWrite() }

// Send sends v, and with it copies of the descriptors of files.
func (c *Conn) Send(v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > Max {
		return fmt.Errorf("frame of %d bytes: at most %d", len(body), Max)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	frame = append(frame, body...)
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	n, _, err := c.conn.WriteMsgUnix(frame, rights, nil)
	if err == nil && n < len(frame) {
		_, err = c.conn.Write(frame[n:])
	}
	return err
}

// Receive decodes the next frame into v. Its descriptors can be taken then, and
// no sooner.
func (c *Conn) Receive(v any) error {
	for len(c.in) < 4 || len(c.in) < 4+int(binary.BigEndian.Uint32(c.in)) {
		if len(c.in) >= 4 && binary.BigEndian.Uint32(c.in) > Max {
			return fmt.Errorf("frame of %d bytes: at most %d", binary.BigEndian.Uint32(c.in), Max)
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
	size := 4 + int(binary.BigEndian.Uint32(c.in))
	err := json.Unmarshal(c.in[4:size], v)
	c.in = c.in[size:]
	if len(c.in) == 0 {
		c.in = nil
	}
	return err
}

func (c *Conn) fill() error {
	n, oobn, _, _, err := c.conn.ReadMsgUnix(c.chunk, c.oob)
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(c.oob[:oobn])
		if err != nil {
			return err
		}
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return err
			}
			c.files = append(c.files, fds...)
		}
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return net.ErrClosed
	}
	c.in = append(c.in, c.chunk[:n]...)
	return nil
}

// Take hands over n received descriptors, in the order in which they were sent.
func (c *Conn) Take(n int) ([]int, error) {
	if n < 0 || n > len(c.files) {
		return nil, fmt.Errorf("frame with %d descriptors: %d have come", n, len(c.files))
	}
	files := c.files[:n:n]
	c.files = c.files[n:]
	return files, nil
}
