package logs

import (
	"bytes"
	"regexp"
	"slices"
	"testing"
)

// byLine are the lines of p that match, one asked after another.
func byLine(re *regexp.Regexp, p []byte) (found [][]byte) {
	for line := range bytes.Lines(p) {
		if line = bytes.TrimSuffix(line, newline); re.Match(line) {
			found = append(found, line)
		}
	}
	return found
}

func byMatcher(m *matcher, p []byte) (found [][]byte) {
	for len(p) > 0 {
		start, end := m.next(p)
		if start < 0 {
			break
		}
		found = append(found, p[start:end])
		p = p[min(end+1, len(p)):]
	}
	return found
}

func checkMatcher(t *testing.T, expression string, p []byte) {
	re, err := regexp.Compile(expression)
	if err != nil || bytes.Contains([]byte(expression), newline) && len(expression) > 40 {
		return
	}
	want, got := byLine(re, p), byMatcher(newMatcher(re), p)
	if len(want) != len(got) {
		t.Fatalf("%q in %q: found %q, want %q", expression, p, got, want)
	}
	for i := range want {
		if !bytes.Equal(want[i], got[i]) {
			t.Fatalf("%q in %q: found %q, want %q", expression, p, got, want)
		}
	}
	m := newMatcher(re)
	for line := range bytes.Lines(p) {
		if line = bytes.TrimSuffix(line, newline); m.line(line) != re.Match(line) {
			t.Fatalf("%q and %q", expression, line)
		}
	}
}

var expressions = []string{
	`error`, `^error$`, `^`, `$`, `^$`, ``, `x*`, `(?i)error`, `(?i)ſtraße`, `\berr`, `\Berr`, `or\b`, `[0-9]{3}[a-f]`, `a.*b`, `a|bc|^d`,
	`^(a|b)+c?$`, `(?m)^b$`, `(?s)a.b`, "a\nb", "[^x]", "\\s", `é+`, `\pL\d`, `[^\x00-\x7f]`, `\x{fffd}`, `.`, `(?i)k`, `\z`, `\A\w`, `GET /\S+ 500`,
	`[ab].{12}c`, `(?i)0ç`,
}

var lines4match = []string{
	"", "\n", "\n\n", "error", "an error\nno\nerror\n", "ERROR\nerr or\nerrors", "a\nb\nab\n", "é\n\xe9\n\xff\xfeab", "12c\n123\n123f", "acab\nxacbx\nd",
	"K\nk\nſtrasse\n", "GET /a 500\nGET / 404\n", "aXXXXXXXXXXXXc\nbc\n", " \t\r\n_err\n-err-\n",
}

func TestMatcherFindsWhatRegexpDoes(t *testing.T) {
	t.Parallel()
	for _, e := range expressions {
		for _, p := range lines4match {
			checkMatcher(t, e, []byte(p))
		}
	}
}

func FuzzMatcher(f *testing.F) {
	for _, e := range expressions {
		for _, p := range lines4match {
			f.Add(e, []byte(p))
		}
	}
	f.Fuzz(checkMatcher)
}

// An expression of which the automaton would be too large is found all the same.
func TestMatcherOfManyStates(t *testing.T) {
	t.Parallel()
	re := regexp.MustCompile(`[ab][^x]{16}c`)
	var p []byte
	for i := range 1 << 17 {
		p = append(p, "ab"[i*i>>3&1], "cab\n"[i*2654435761>>7&3])
	}
	m := newMatcher(re)
	want, got := byLine(re, p), byMatcher(m, p)
	if len(got) != len(want) || !bytes.Equal(bytes.Join(got, newline), bytes.Join(want, newline)) {
		t.Errorf("found %d lines, want %d", len(got), len(want))
	}
}

func FuzzNeedle(f *testing.F) {
	f.Add([]byte("b"), bytes.Repeat([]byte("a"), 31), []byte("b"))
	f.Add([]byte("abc"), bytes.Repeat([]byte("ab"), 40), []byte("c"))
	f.Add([]byte("aa"), []byte("a"), []byte("a"))
	f.Add([]byte("needle"), bytes.Repeat([]byte("needl needle"), 9), bytes.Repeat([]byte("x"), 64))
	f.Add([]byte("a long needle"), bytes.Repeat([]byte("hay "), 100), []byte("a long needle"))
	f.Add([]byte("a long needle"), bytes.Repeat([]byte("a long need"), 100), []byte("a long needle"))
	f.Fuzz(func(t *testing.T, text, before, after []byte) {
		if len(text) == 0 {
			return
		}
		p := slices.Concat(before, after)
		if got, want := (&needle{text: text}).index(p), bytes.Index(p, text); got != want {
			t.Fatalf("%q in %q: %d, want %d", text, p, got, want)
		}
	})
}
