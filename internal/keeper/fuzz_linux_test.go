package keeper

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzStat gives a process any name and any beginning of its stat. The name
// changes nothing, and of a file that is not whole nothing is believed.
func FuzzStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	_, fields, ok := strings.Cut(string(own), ") ")
	if !ok {
		f.Fatalf("stat is %q", own)
	}
	const whole = "S 1 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654321 1000 2000 18446744073709551615 0"
	f.Add([]byte("cat"), fields, uint16(len(fields)))
	f.Add([]byte(") Z 1 1 ("), whole, uint16(len(whole)))
	f.Add([]byte("a b)\n1 (c) R 7 7 7"), whole, uint16(len(whole)))
	f.Add([]byte{}, whole, uint16(76)) // within the time of the start
	f.Add([]byte("x"), "S -1 99999999999999999999 0", uint16(1000))
	f.Fuzz(func(t *testing.T, name []byte, rest string, length uint16) {
		want, wantOK := parseStat([]byte("1 (x) " + rest))
		if strings.ContainsAny(rest, ")") {
			return // not what follows a name
		}
		text := fmt.Appendf(nil, "1 (%s) %s", name, rest)
		if got, ok := parseStat(text); got != want || ok != wantOK {
			t.Errorf("named %q: %+v %v, want %+v %v", name, got, ok, want, wantOK)
		}
		// Cut anywhere behind the name it is the same, or nothing.
		cut := text[:len(text)-len(rest)+min(int(length), len(rest))]
		if got, ok := parseStat(cut); ok && got != want {
			t.Errorf("cut to %q: %+v, want %+v or nothing", cut, got, want)
		}
	})
}

// FuzzLimits finds the limit of locks wherever it stands, and no other.
func FuzzLimits(f *testing.F) {
	own, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("Max file locks            288230376151711743   1152921504606846975 locks\n"))
	f.Add([]byte("Max file locks            unlimited            unlimited            locks\n"))
	f.Add([]byte("Max file locks 1\nMax file locks 1 2"))
	f.Add([]byte("Max file locks 1 18446744073709551616 locks"))
	f.Add([]byte("xMax file locks 1 2 locks"))
	f.Fuzz(func(t *testing.T, text []byte) {
		limit, ok := parseLimits(text)
		if !ok {
			return
		}
		written := fmt.Sprint(limit)
		if limit == unix.RLIM_INFINITY && !bytes.Contains(text, []byte(written)) {
			written = "unlimited"
		}
		found := false
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			found = found || strings.HasPrefix(line, "Max file locks ") && len(fields) > 4 && strings.TrimLeft(fields[4], "0") == strings.TrimLeft(written, "0")
		}
		if !found {
			t.Errorf("%d is not in %q", limit, text)
		}
	})
}

// FuzzEnviron puts entries into an environment. A run is found if and only if
// an entry is our variable with our owner, whatever else is there.
func FuzzEnviron(f *testing.F) {
	f.Add("PATH=/bin", "0123456789abcdef/shop/web/1", "")
	f.Add(Variable+"=other/x", "me/run", "me/outer,other/y")
	f.Add("LOCALD_MARK", "", ",,")
	f.Add(Variable+"=me/decoy\x00", "me", "/")
	f.Fuzz(func(t *testing.T, entry, run, inherited string) {
		const owner = "0123456789abcdef"
		if strings.ContainsAny(run, "\x00,") || strings.ContainsAny(inherited, "\x00") || strings.Contains(entry, owner) || strings.Contains(inherited, owner) {
			return // the keeper writes none of these
		}
		m := Mark{Owner: owner, Run: run}
		environ := []byte(entry + "\x00" + m.variable(inherited) + "\x00")
		if got := runsOf(owner, environ); len(got) != 1 || got[0] != run {
			t.Errorf("%q names %q, want %q", environ, got, run)
		}
		if got := runsOf("fedcba9876543210", []byte(entry+"\x00"+m.variable("")+"\x00")); len(got) != 0 && !strings.Contains(entry+run, "fedcba9876543210") {
			t.Errorf("%q names %q to somebody else", environ, got)
		}
		// What a program wrote over a part of its environment never panics and
		// names no run that is not there.
		for _, got := range runsOf(owner, environ[:len(environ)/2]) {
			if !bytes.Contains(environ, []byte(owner+"/"+got)) {
				t.Errorf("%q is not in %q", got, environ)
			}
		}
	})
}

func FuzzLoadavg(f *testing.F) {
	own, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("0.00 0.01 0.05 1/234 99999999999999999999\n"))
	f.Add([]byte("0.00 0.01 0.05 1/234 -3\n"))
	f.Add([]byte("0.00 0.01 0.05 1/234\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if pid := parseLoadavg(text); pid < 0 || pid > 1<<22 {
			t.Errorf("%q: %d is no PID", text, pid)
		}
	})
}
