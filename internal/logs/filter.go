package logs

import (
	"bytes"
	"regexp"
	"regexp/syntax"
)

// filter is a Query made ready for blocks and lines.
type filter struct {
	after        uint64
	since, until int64 // ns; 0 is open
	from, to     int   // runs; 0 is open
	stream       Stream
	output       bool // stdout and stderr only

	grep    *regexp.Regexp
	literal []byte // every match contains it
	exact   bool   // and what contains it matches
}

func newFilter(q Query) filter {
	f := filter{after: q.After, from: q.FromRun, to: q.ToRun, stream: q.Stream, output: q.Output, grep: q.Grep}
	if !q.Since.IsZero() {
		f.since = q.Since.UnixNano()
	}
	if !q.Until.IsZero() {
		f.until = q.Until.UnixNano()
	}
	if q.Grep != nil {
		f.literal, f.exact = literalOf(q.Grep)
	}
	return f
}

// block reports whether lines of the block can pass.
func (f *filter) block(h header) bool {
	switch {
	case h.end() <= f.after+1,
		f.since != 0 && h.time < f.since,
		f.until != 0 && h.time >= f.until,
		f.from != 0 && h.run < f.from,
		f.to != 0 && h.run > f.to:
		return false
	}
	switch h.stream {
	case Gap:
		return !f.output && f.stream != Event
	case Event:
		return !f.output && (f.stream == "" || f.stream == Event)
	}
	return f.stream == "" || f.stream == h.stream
}

// searches reports whether lines of the stream must be looked at. A gap always
// passes: what is missing may have matched.
func (f *filter) searches(s Stream) bool { return f.grep != nil && s != Gap }

func (f *filter) line(data []byte) bool {
	if len(f.literal) > 0 && !bytes.Contains(data, f.literal) {
		return false
	}
	return f.exact || f.grep.Match(data)
}

// literalOf finds the longest text that is in every match of re. exact says
// that every line that contains it matches.
func literalOf(re *regexp.Regexp) (literal []byte, exact bool) {
	if prefix, complete := re.LiteralPrefix(); complete {
		return []byte(prefix), true
	}
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil { // a POSIX expression
		return nil, false
	}
	return []byte(required(tree.Simplify())), false
}

// required is the longest text that every match of the expression contains.
func required(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
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
