package container

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// FuzzTrace puts a vertex after anything that is a field. It is found, whatever
// comes before and after it.
func FuzzTrace(f *testing.F) {
	f.Add([]byte("other"), []byte{})
	f.Add([]byte{}, []byte{0x1a, 0xff, 0xff})
	f.Add([]byte("\x0a\x01d\x1a\x01n"), []byte("\x12\x02\x20\x05"))
	f.Fuzz(func(t *testing.T, before, after []byte) {
		one := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "sha256:1")
		one = protowire.AppendString(protowire.AppendTag(one, 3, protowire.BytesType), "[1/2] RUN x")
		one = protowire.AppendVarint(protowire.AppendTag(one, 4, protowire.VarintType), 1)
		message := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), before)
		message = protowire.AppendBytes(protowire.AppendTag(message, 1, protowire.BytesType), one)
		got := parseTrace(append(message, after...))
		if !slices.Contains(got.vertexes, vertex{digest: "sha256:1", name: "[1/2] RUN x", cached: true}) || len(got.output) == 0 {
			t.Errorf("%+v between %q and %q", got, before, after)
		}
	})
}

// FuzzTable looks for a listener in a table of /proc/net. It is found whatever
// stands around it, and one that is not there is not.
func FuzzTable(f *testing.F) {
	const row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n"
	f.Add("  sl  local_address rem_address   st\n", "1: 0100007F:1F91 0100007F:C350 01\n")
	f.Add("2: 00000000000000000000000001000000:0BB8 0 0A", "")
	f.Add("3: zz:0BB8 0 0A\n4: 01:1 0 0A\n5: :\n", "6: 0100007F:11F90 0 0A\n")
	f.Add("7: 0000000000000000FFFF00000100007F:1F91 0 0A\n", "\x00")
	here, elsewhere := netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("192.0.2.77:8080")
	f.Fuzz(func(t *testing.T, before, after string) {
		if !lists(strings.NewReader(before+"\n"+row+after), here) {
			t.Errorf("not found between %q and %q", before, after)
		}
		text := before + "\n" + after
		if lists(strings.NewReader(text), elsewhere) && !strings.Contains(strings.ToUpper(text), "4D0200C0") {
			t.Errorf("%v is not in %q", elsewhere, text)
		}
	})
}
