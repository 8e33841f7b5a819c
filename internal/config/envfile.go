package config

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// parseEnvFile reads lines of KEY=value. "export " before a key, empty lines
// and comments are fine; " #" begins a comment behind a value without quotes.
// In single quotes everything is literal; in double quotes \n, \r, \t, \", \\,
// \$ and \` are escapes and other backslashes are literal. Both may go over
// several lines. Nothing is interpolated. A key that is there twice is there
// twice: the later one wins.
func parseEnvFile(file string, content []byte, found *problems) []Var {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	r := &envReader{file: file, rest: strings.ReplaceAll(string(content), "\r\n", "\n"), line: 1, problems: found}
	var vars []Var
	for r.rest != "" {
		if v, ok := r.next(); ok {
			vars = append(vars, v)
		}
	}
	return vars
}

// envReader reads one line, or what begins on it, at a time.
type envReader struct {
	file string
	rest string
	line int
	*problems
}

// next takes a line; ok is false when there was no variable on it.
func (r *envReader) next() (v Var, ok bool) {
	line, after, _ := strings.Cut(r.rest, "\n")
	at := Pos{File: r.file, Line: r.line}
	text := strings.TrimLeft(line, " \t")
	skipped := len(line) - len(text)
	if rest, exported := cutWord(text, "export"); exported {
		skipped += len(text) - len(rest)
		text = rest
	}
	at.Column = utf8.RuneCountInString(line[:skipped]) + 1
	name, written, assigned := strings.Cut(text, "=")
	name = strings.TrimRight(name, " \t")
	switch {
	case text == "" || text[0] == '#':
		r.rest, r.line = after, r.line+1
		return Var{}, false
	case !assigned:
		r.rest, r.line = after, r.line+1
		r.add(at, "KEY=value", "expected KEY=value")
		return Var{}, false
	case !variableName.MatchString(name):
		r.rest, r.line = after, r.line+1
		r.add(at, "letters, digits and _", "%s is not a valid name of a variable", quote(name))
		return Var{}, false
	}
	start := len(line) - len(written)
	r.rest = r.rest[start:]
	value, ok := r.value(at, name)
	return Var{Name: name, Value: value, Pos: at}, ok
}

// cutWord is s without word and the blanks behind it, of which there must be
// one.
func cutWord(s, word string) (string, bool) {
	rest, ok := strings.CutPrefix(s, word)
	trimmed := strings.TrimLeft(rest, " \t")
	return trimmed, ok && len(trimmed) < len(rest)
}

// value takes what is behind "=", to the end of the line.
func (r *envReader) value(at Pos, name string) (string, bool) {
	trimmed := strings.TrimLeft(r.rest, " \t")
	if trimmed != "" && (trimmed[0] == '"' || trimmed[0] == '\'') {
		r.rest = trimmed
		return r.quoted(at, name)
	}
	line, after, _ := strings.Cut(r.rest, "\n")
	r.rest, r.line = after, r.line+1
	return strings.TrimSpace(withoutComment(line)), true
}

// withoutComment cuts at the first # with a blank before it.
func withoutComment(s string) string {
	for i := 1; i < len(s); i++ {
		if s[i] == '#' && (s[i-1] == ' ' || s[i-1] == '\t') {
			return s[:i]
		}
	}
	return s
}

// quoted takes a value in quotes, and the rest of its last line, on which only
// a comment may follow.
func (r *envReader) quoted(at Pos, name string) (string, bool) {
	mark := r.rest[0]
	end := closing(r.rest, mark)
	if end < 0 {
		r.add(at, "", "%s: the quote %c is not closed", name, mark)
		r.rest = "" // what follows is inside the quotes or not, nobody knows
		return "", false
	}
	inside := r.rest[1:end]
	r.line += strings.Count(inside, "\n")
	behind, after, _ := strings.Cut(r.rest[end+1:], "\n")
	behind = strings.TrimSpace(behind)
	if behind != "" && behind[0] != '#' {
		column := at.Column // of the name, where that is on the same line
		if begin := strings.LastIndexByte(r.rest[:end], '\n'); begin >= 0 {
			column = end - begin
		}
		r.add(Pos{File: r.file, Line: r.line, Column: column}, "", "%s: there is text behind the closing quote", name)
	}
	r.rest, r.line = after, r.line+1
	if mark == '"' {
		inside = unescape(inside)
	}
	return inside, true
}

// closing is the index of the quote that closes the one s begins with, or -1.
func closing(s string, mark byte) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == mark:
			return i
		case s[i] == '\\' && mark == '"':
			i++
		}
	}
	return -1
}

func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case '"', '\\', '$', '`':
			b.WriteByte(s[i])
		default:
			b.WriteByte('\\')
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
