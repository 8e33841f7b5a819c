package logs

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode/utf8"
)

// matcher finds the lines that a regular expression matches. It is for one
// goroutine.
type matcher struct {
	re      *regexp.Regexp
	literal *needle  // in every match; nil when there is no such text
	exact   bool     // and what contains it matches
	steps   *machine // the same as re; nil when that must do
}

func newMatcher(re *regexp.Regexp) *matcher {
	m := &matcher{re: re}
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return m // a POSIX expression
	}
	tree = tree.Simplify()
	text := required(tree)
	m.exact = tree.Op == syntax.OpLiteral && text != ""
	if prefix, _ := re.LiteralPrefix(); len(prefix) > len(text) {
		text = prefix
	}
	if text != "" {
		m.literal = &needle{text: []byte(text)}
	}
	if !m.exact {
		m.steps = newMachine(tree)
	}
	return m
}

// next is the first line of p that matches, without its newline; start is -1
// when there is none. p begins with a line.
func (m *matcher) next(p []byte) (start, end int) {
	for end = -1; end+1 < len(p); {
		at := end + 1
		hit := m.place(p[at:])
		if hit < 0 {
			break
		}
		start, end = around(p, at+hit)
		if m.literal == nil && m.steps != nil || m.line(p[start:end]) {
			return start, end
		}
	}
	return -1, -1
}

// place is in the first line that may match, or -1.
func (m *matcher) place(p []byte) int {
	if m.literal != nil {
		return m.literal.index(p)
	}
	if m.steps != nil {
		if at, ok := m.steps.index(p); ok {
			return at
		}
		m.steps = nil
	}
	return 0
}

// line reports whether one line matches.
func (m *matcher) line(data []byte) bool {
	if m.literal != nil && m.literal.index(data) < 0 {
		return false
	}
	if m.exact {
		return true
	}
	if m.steps != nil {
		if at, ok := m.steps.index(data); ok {
			return at >= 0
		}
		m.steps = nil
	}
	return m.re.Match(data)
}

// mayMatch is false when no line of p does, however that is cut into lines.
func (m *matcher) mayMatch(p []byte) bool { return m.literal == nil || m.literal.index(p) >= 0 }

// around is the line in which the byte at i is. A newline belongs to the line
// that it ends.
func around(p []byte, i int) (start, end int) {
	start = bytes.LastIndexByte(p[:i], '\n') + 1
	if n := bytes.IndexByte(p[i:], '\n'); n >= 0 {
		return start, i + n
	}
	return start, len(p)
}

// required is the longest text that every match of the expression contains.
func required(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 && !slices.Contains(re.Rune, utf8.RuneError) { // bytes that are none match it
			return string(re.Rune)
		}
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpConcat:
		longest := ""
		for _, sub := range re.Sub {
			if s := required(sub); len(s) > len(longest) {
				longest = s
			}
		}
		return longest
	}
	return ""
}
