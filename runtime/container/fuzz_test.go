package container

import (
	"net/netip"
	"strings"
	"testing"
)

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
