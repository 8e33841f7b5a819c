package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// message is one as rooms send them.
type message struct {
	ID     uint64 `json:"id"`
	Text   string `json:"text,omitempty"`
	Files  int    `json:"files,omitempty"`
	Behind int    `json:"behind,omitempty"`
}

// FuzzFrame sends bytes to one end. What comes out is
// the frames that they are, then an error; memory follows what was sent and
// never what a length says.
func FuzzFrame(f *testing.F) {
	frame := func(v any) []byte {
		body, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	f.Add(frame(message{ID: 1, Text: "stop"}))
	f.Add(append(frame(message{ID: 1}), frame(message{ID: 2, Files: 1 << 30, Text: "\xff"})...))
	f.Add(append(frame(message{ID: 3, Behind: 4}), "tail"...))
	f.Add(append(frame(message{ID: 3, Behind: 5}), "tail"...))
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'})
	f.Add([]byte{2, 0, 0, 0, '{', '}'}) // a length that is allowed, and no such frame
	f.Add(frame("text"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		if len(sent) > 100<<10 {
			return // more than a socket takes without a reader
		}
		near, far := pair(t)
		if _, err := far.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := far.Close(); err != nil {
			t.Fatal(err)
		}
		w := New(near)
		taken := 0
		for rest := sent; ; {
			var got message
			err := w.Receive(&got)
			if cap(w.in) > 8*len(sent)+64<<10 {
				t.Fatalf("holds %d bytes of %d", cap(w.in), len(sent))
			}
			complete := len(rest) >= 4 && uint64(len(rest)) >= 4+uint64(binary.BigEndian.Uint32(rest))
			if !complete {
				if err == nil {
					t.Fatalf("after %d bytes a frame %+v that nobody sent", taken, got)
				}
				return
			}
			size := 4 + int(binary.BigEndian.Uint32(rest))
			if err == nil != json.Valid(rest[4:size]) && err == nil {
				t.Fatalf("%q was taken", rest[4:size])
			}
			if _, takeErr := w.Take(got.Files); got.Files != 0 && takeErr == nil {
				t.Fatal("descriptors that nobody sent were handed over")
			}
			if err != nil {
				return // whoever serves hangs up
			}
			behind, err := w.Behind(got.Behind)
			if err != nil {
				return
			}
			if !bytes.Equal(behind, rest[size:size+got.Behind]) {
				t.Fatalf("%q comes behind the frame, not %q", rest[size:], behind)
			}
			size += got.Behind
			rest, taken = rest[size:], taken+size
		}
	})
}

func pair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]*net.UnixConn{}
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(file)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
		t.Cleanup(func() { _ = conn.Close() })
	}
	return ends[0], ends[1]
}
