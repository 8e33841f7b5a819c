package sockets

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzTable reads tables of /proc/net. A line that is not understood hides no
// other, and what is found can be found in the text.
func FuzzTable(f *testing.F) {
	const listener = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 100 0 0 10 0\n"
	f.Add("  sl  local_address rem_address   st\n", "")
	f.Add("   2: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 77 1 0\n", "   1: 0100007F:1F91 0100007F:C350 01 0:0 0:0 0 0 0 1\n")
	f.Add("zz:0BB8 0:0 0A 0 0 0 0 0 0\n", strings.Repeat("x", 70<<10)+"\n")
	f.Add("0: 01:1F90 0 0A 0 0 0 -1 0 1 1\n", "0: 0100007F:1F90F 0 0A 0 0 0 1 0 1 1\n")
	f.Fuzz(func(t *testing.T, before, after string) {
		text := before + "\n" + listener + after
		found := false
		for _, s := range parseTable(strings.NewReader(text)) {
			found = found || s.Inode == 4242 && s.UID == 1000 && s.Addr.String() == "127.0.0.1:8080"
			if !s.Addr.IsValid() || !strings.Contains(text, fmt.Sprint(s.Inode)) || !strings.Contains(strings.ToUpper(text), fmt.Sprintf(":%04X", s.Addr.Port())) {
				t.Errorf("%+v is not in %q", s, text)
			}
		}
		if !found {
			t.Errorf("the listener between %q and %q is not found", before, after)
		}
	})
}

// FuzzDiagnosis reads answers of the kernel's socket diagnosis.
func FuzzDiagnosis(f *testing.F) {
	message := func(kind uint16, body []byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		return append(append(b, make([]byte, unix.SizeofNlMsghdr-6)...), body...)
	}
	socket := make([]byte, diagMessageSize)
	socket[0], socket[1] = unix.AF_INET, stateListen
	copy(socket[4:], []byte{0x1f, 0x90})
	one := message(getSockets, socket)
	f.Add(append(one, message(unix.NLMSG_DONE, nil)...))
	f.Add(message(unix.NLMSG_ERROR, []byte{0xff, 0xff, 0xff, 0xff}))
	f.Add(message(unix.NLMSG_ERROR, nil))
	f.Add(one[:len(one)-1])
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{0xff, 0xff, 0xff, 0x7f}, one[4:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, done, err := messages(b, nil)
		if len(list) > len(b)/(unix.SizeofNlMsghdr+diagMessageSize) {
			t.Errorf("%d sockets in %d bytes", len(list), len(b))
		}
		if err != nil && (done || list != nil) {
			t.Errorf("%v, and also %v %v", err, list, done)
		}
		for _, s := range list {
			port := binary.BigEndian.AppendUint16(nil, s.Addr.Port())
			if !s.Addr.IsValid() || !bytes.Contains(b, port) {
				t.Errorf("%+v is not in %s", s, hex.EncodeToString(b))
			}
		}
	})
}
