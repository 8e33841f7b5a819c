package logs

// filter is a Query made ready for blocks and lines.
type filter struct {
	after        uint64
	since, until int64 // ns; 0 is open
	from, to     int   // runs; 0 is open
	stream       Stream
	output       bool // stdout and stderr only

	grep *matcher // nil when every line is wanted
}

func newFilter(q Query) filter {
	f := filter{after: q.After, from: q.FromRun, to: q.ToRun, stream: q.Stream, output: q.Output}
	if !q.Since.IsZero() {
		f.since = q.Since.UnixNano()
	}
	if !q.Until.IsZero() {
		f.until = q.Until.UnixNano()
	}
	if q.Grep != nil {
		f.grep = newMatcher(q.Grep)
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
