package ports

import (
	"strings"
	"testing"
)

// FuzzRanges reads what files of /proc/sys say of ports. Every range has ends
// that stand there, and text that is none is an error that quotes it.
func FuzzRanges(f *testing.F) {
	for _, text := range []string{"32768\t60999\n", "", "\n", "8080,9000-9010\n", "1024 65535", "9000-", "-", "1--2", "a,b", "99999999999999999999", "5 3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ranges, err := parseRanges(text)
		if err != nil {
			if ranges != nil || !strings.Contains(err.Error(), "is no range of ports") {
				t.Errorf("%q: %v, %v", text, ranges, err)
			}
			return
		}
		p := &Pool{taken: map[int]bool{}}
		p.exclude(ranges)
		for _, r := range ranges {
			for _, port := range r {
				if r[0] <= r[1] && port >= Lowest && port <= Highest && !p.avoid[port] {
					t.Errorf("%q: %d is not avoided", text, port)
				}
			}
		}
		if strings.Trim(text, " \t\n,") == "" && len(ranges) > 0 {
			t.Errorf("%q: %v", text, ranges)
		}
	})
}
