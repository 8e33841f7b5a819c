// Package wire sends JSON in frames, with file descriptors, over one end of a
// socket pair: what two of our own processes say to each other.
//
// A frame is its length in four bytes, the highest first, and then the JSON.
// Nobody else reads it, and both ends are of one version.
package wire

import (
	"bytes"
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
func (c *Conn) Send(v any, files ...*os.File) error { return c.SendWith(v, nil, files...) }

// SendWith is Send with bytes behind the frame, for which the other end has to
// ask: v says how many they are.
func (c *Conn) SendWith(v any, behind []byte, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if n := len(body) + len(behind); n > Max {
		return fmt.Errorf("frame of %d bytes: at most %d", n, Max)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)+len(behind)), uint32(len(body)))
	frame = append(append(frame, body...), behind...)
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
	c.drop(size)
	return err
}

// Behind returns the n bytes that came behind the frame that was received last.
func (c *Conn) Behind(n int) ([]byte, error) {
	if n < 0 || n > Max {
		return nil, fmt.Errorf("%d bytes behind a frame: at most %d", n, Max)
	}
	for len(c.in) < n {
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
	b := bytes.Clone(c.in[:n])
	c.drop(n)
	return b, nil
}

func (c *Conn) drop(n int) {
	if c.in = c.in[n:]; len(c.in) == 0 {
		c.in = nil
	}
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
