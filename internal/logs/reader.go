package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"time"
)

// Line is one numbered line.
type Line struct {
	Seq    uint64 // counts up by one from line to line of a store
	Time   time.Time
	Run    int
	Stream Stream
	Data   []byte // as written, without the newline; of a gap: the reason

	// Partial says that there was no newline here: the line was cut and goes
	// on in the next one of its stream, or the stream ended.
	Partial bool
	Missing int64 // of a gap: how many bytes are not there; 0 when nobody knows
}

// Query says which lines of a store are wanted. Gaps are among them unless
// Stream is Event.
type Query struct {
	Tail         int       // the last so many of them; -1 is all, 0 is none
	Since, Until time.Time // not before Since, before Until; zero is open
	After        uint64    // only higher numbers
	Grep         *regexp.Regexp
	Stream       Stream // empty is all
	Output       bool   // only Stdout and Stderr
	FromRun      int    // the first run; 0 is open
	ToRun        int    // the last run; 0 is open
}

// Reader reads one store. Methods may be called concurrently, while a writer
// writes and segments are deleted.
type Reader struct{ dir string }

// OpenReader returns a Reader of the store in dir, which may not exist yet: it
// is then empty.
func OpenReader(dir string) *Reader { return &Reader{dir: dir} }

// Read calls emit for every line that the store holds at the time of the call
// and that q asks for, in order. Line.Data is valid during emit only. An error
// of emit, or the end of ctx, ends Read with that error.
//
// Where lines between others, or before all that are left, are gone, because
// segments were deleted or damaged, emit gets a gap with the number of the first
// of them.
func (r *Reader) Read(ctx context.Context, q Query, emit func(Line) error) error {
	return r.read(ctx, newFilter(q), q.Tail, emit)
}

func (r *Reader) read(ctx context.Context, f filter, tail int, emit func(Line) error) error {
	c := newCursor(ctx, r.dir, f, func(batch []Line) error {
		for _, l := range batch {
			if err := emit(l); err != nil {
				return err
			}
		}
		return nil
	})
	defer c.close()
	return c.present(tail)
}

// Last returns the last n lines that a run wrote to stdout and stderr; run 0 is
// any.
func Last(dir string, n, run int) ([]Line, error) {
	f := newFilter(Query{FromRun: run, ToRun: run})
	f.output = true
	var lines []Line
	err := OpenReader(dir).read(context.Background(), f, n, func(l Line) error {
		l.Data = bytes.Clone(l.Data)
		lines = append(lines, l)
		return nil
	})
	return lines, err
}

const batchLines = 128

// cursor goes through the segments of a store and hands out lines in batches.
type cursor struct {
	ctx    context.Context
	dir    string
	filter filter
	emit   func([]Line) error
	batch  []Line
	pour   *pour // takes the payloads of whole blocks; nil when all are lines

	seg  segment
	scan *scanner // of seg; nil when none is open
	pass int      // lines that pass the filter and are left out

	place
	begun func(header) error // told of the first block, if not nil
	anew  bool               // the directory was replaced
}

// place is how far a cursor has come in a store.
type place struct {
	started bool
	next    uint64 // the number that should come, once started
	before  uint64 // header.before that should come
}

func newCursor(ctx context.Context, dir string, f filter, emit func([]Line) error) *cursor {
	return &cursor{ctx: ctx, dir: dir, filter: f, emit: emit}
}

func (c *cursor) close() {
	if c.scan != nil {
		c.scan.release()
		c.scan.f.Close()
		c.scan = nil
	}
}

// flush hands out the batch.
func (c *cursor) flush() error {
	if len(c.batch) > 0 {
		err := c.emit(c.batch)
		c.batch = c.batch[:0]
		if err != nil {
			return err
		}
	}
	if c.pour != nil {
		if err := c.pour.out.Flush(); err != nil {
			return err
		}
	}
	return c.ctx.Err()
}

// present hands out what is there, and stays at its end.
func (c *cursor) present(tail int) error {
	list, err := segments(c.dir)
	if err != nil || len(list) == 0 {
		return err
	}
	newest := len(list) - 1
	size := int64(0)
	if info, err := os.Lstat(filepath.Join(c.dir, list[newest].name())); err == nil {
		size = info.Size()
	}
	start := c.begin(list)
	if tail < 0 {
		c.expect()
	} else if start, err = c.rewind(list, start, size, tail); err != nil {
		return err
	}
	for to := c.filter.to; to > 0 && start < newest && list[newest].run > to; newest-- { // runs follow one another
		size = -1
	}
	if c.filter.grep != nil && c.pass == 0 {
		if err := c.search(list[start:newest]); err != nil {
			return err
		}
		start = newest
	}
	for i := start; i <= newest; i++ {
		limit := int64(-1)
		if i == newest {
			limit = size
		}
		if err := c.open(list[i], limit); err != nil {
			return err
		}
		if err := c.drain(); err != nil {
			return err
		}
	}
	c.pass = 0
	return nil
}

// expect says which number should come first, where that can be known.
func (c *cursor) expect() {
	if c.filter.from == 0 && c.filter.since == 0 {
		// If everything is wanted, what was removed before is missed.
		c.started, c.next = true, c.filter.after+1
	}
}

// begin is the first segment that can hold a line that is wanted.
func (c *cursor) begin(list []segment) int {
	start := 0
	if after := c.filter.after; after > 0 {
		start = max(start, sort.Search(len(list), func(i int) bool { return list[i].first > after+1 })-1)
	}
	if from := c.filter.from; from > 0 {
		start = max(start, sort.Search(len(list), func(i int) bool { return list[i].run >= from })-1)
	}
	if c.filter.since == 0 {
		return start
	}
	// The system's stamps lag behind its clock by a few milliseconds.
	since := time.Unix(0, c.filter.since).Add(-time.Second)
	for start < len(list)-1 {
		info, err := os.Lstat(filepath.Join(c.dir, list[start].name()))
		if err != nil || !info.ModTime().Before(since) {
			break
		}
		start++
	}
	return start
}

// rewind finds the segment in which the last n lines begin, not before start,
// and sets how many lines there come before them. The newest segment counts up
// to size.
func (c *cursor) rewind(list []segment, start int, size int64, n int) (int, error) {
	total := 0
	for i := len(list) - 1; i >= start; i-- {
		limit := int64(-1)
		if i == len(list)-1 {
			limit = size
		}
		if err := c.open(list[i], limit); err != nil {
			return 0, err
		}
		found, err := c.count()
		if err != nil {
			return 0, err
		}
		total += found
		if total >= n {
			c.pass = total - n
			return i, nil
		}
	}
	return start, nil
}

// open goes to the beginning of a segment. limit is how far it is read; -1 is
// to its end. A segment that cannot be opened is passed over.
func (c *cursor) open(s segment, limit int64) error {
	c.close()
	f, err := openSegment(c.dir, s, os.O_RDONLY)
	if err != nil {
		return nil //nolint:nilerror // deleted, or not ours; the numbers say what is missing
	}
	c.seg, c.scan = s, newScanner(f)
	c.scan.refill = c.flush
	if c.pour != nil && c.pour.file != nil {
		c.scan.ahead = pageSize // few payloads pass through us
	}
	if limit >= 0 {
		c.scan.end = limit
		return nil
	}
	return c.scan.refresh()
}

// count is how many lines of the open segment pass the filter.
func (c *cursor) count() (n int, err error) {
	if c.scan == nil {
		return 0, nil
	}
	for {
		h, err := c.scan.header()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, errTorn):
			return n, nil
		case err != nil:
			return 0, err
		case !c.filter.block(h):
			c.scan.skip()
		case !c.filter.searches(h.stream) && h.first > c.filter.after:
			c.scan.skip()
			n += h.lines
		default:
			payload, err := c.scan.payload()
			if errors.Is(err, io.EOF) {
				return n, nil
			}
			if err != nil {
				return 0, err
			}
			_ = c.lines(h, payload, func(Line) error { n++; return nil })
		}
	}
}

// drain hands out the rest of the open segment.
func (c *cursor) drain() error {
	for c.scan != nil {
		h, err := c.scan.header()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			break
		}
		if err == nil {
			err = c.block(h)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return c.flush()
}

// block hands out one block.
func (c *cursor) block(h header) error {
	if c.started && h.end() <= c.next {
		c.scan.skip() // read before, in a segment that was cut since
		return nil
	}
	if !c.started && c.begun != nil {
		if err := c.begun(h); err != nil {
			return err
		}
	}
	if err := c.missing(h); err != nil {
		return err
	}
	skip := !c.filter.block(h)
	if !skip && c.pass >= h.lines && !c.filter.searches(h.stream) && h.first > c.filter.after {
		c.pass -= h.lines
		skip = true
	}
	if skip {
		c.scan.skip()
	} else if err := c.take(h); err != nil {
		return err
	}
	c.started, c.next, c.before = true, h.end(), h.before+uint64(h.length)
	return nil
}

// take hands out the lines of a block that are wanted.
func (c *cursor) take(h header) error {
	if c.pour == nil || !c.whole(h) {
		payload, err := c.scan.payload()
		if err != nil {
			return err
		}
		return c.lines(h, payload, c.add)
	}
	if len(c.batch) > 0 {
		if err := c.flush(); err != nil {
			return err
		}
	}
	return c.pour.block(c.scan)
}

// missing hands out a gap when lines are missing before a block.
func (c *cursor) missing(h header) error {
	if !c.started || h.first <= c.next || c.pass > 0 {
		return nil
	}
	gap := h
	gap.stream = Gap
	if !c.filter.block(gap) {
		return nil
	}
	l := Line{Seq: c.next, Time: h.at(), Run: h.run, Stream: Gap, Data: []byte("these lines are no longer stored")}
	if (c.before > 0 || c.next == 1) && h.before > c.before {
		l.Missing = int64(h.before - c.before)
	}
	return c.append(l)
}

// add takes a line that passes the filter.
func (c *cursor) add(l Line) error {
	if c.pass > 0 {
		c.pass--
		return nil
	}
	return c.append(l)
}

func (c *cursor) append(l Line) error {
	if c.batch == nil {
		c.batch = make([]Line, 0, batchLines)
	}
	c.batch = append(c.batch, l)
	if len(c.batch) == batchLines {
		return c.flush()
	}
	return nil
}

// lines calls each for every line of a block that passes the filter.
func (c *cursor) lines(h header, payload []byte, each func(Line) error) error {
	search := c.filter.searches(h.stream)
	if search && !c.filter.grep.mayMatch(payload) {
		return nil
	}
	l := Line{Seq: h.first, Time: h.at(), Run: h.run, Stream: h.stream}
	if h.stream == Gap {
		number, why, _ := bytes.Cut(bytes.TrimSuffix(payload, newline), []byte(" "))
		l.Missing, _ = strconv.ParseInt(string(number), 10, 64)
		l.Data = why
		return each(l)
	}
	if search && regular(h, payload) {
		return c.matches(l, payload, each)
	}
	for ; len(payload) > 0 && l.Seq < h.end(); l.Seq++ {
		whole := payload
		l.Data, payload, l.Partial = split(payload)
		if l.Seq+1 == h.end() && len(payload) > 0 { // more lines than there were
			return c.damaged(h, l, len(whole), each)
		}
		if l.Seq <= c.filter.after || search && !c.filter.grep.line(l.Data) {
			continue
		}
		if err := each(l); err != nil {
			return err
		}
	}
	if l.Seq < h.end() { // fewer
		return c.damaged(h, l, 0, each)
	}
	return nil
}

// regular reports whether each line of a block ends with a newline, or with the
// block, and none was cut.
func regular(h header, payload []byte) bool {
	lines := bytes.Count(payload, newline)
	if payload[len(payload)-1] != '\n' {
		lines++
	}
	return lines == h.lines
}

// matches calls each for the lines of a regular block that match, without a look
// at the others. l says what they have in common, and the number of the first.
func (c *cursor) matches(l Line, payload []byte, each func(Line) error) error {
	for len(payload) > 0 {
		start, end := c.filter.grep.next(payload)
		if start < 0 {
			return nil
		}
		l.Seq += uint64(bytes.Count(payload[:start], newline))
		l.Data, l.Partial = payload[start:end], end == len(payload)
		if l.Seq > c.filter.after {
			if err := each(l); err != nil {
				return err
			}
		}
		l.Seq++
		payload = payload[min(end+1, len(payload)):]
	}
	return nil
}

// damaged hands out a gap in the place of l and what follows it in its block,
// of which the number of lines shows that it is not what was written.
func (c *cursor) damaged(h header, l Line, bytes int, each func(Line) error) error {
	h.stream = Gap
	if !c.filter.block(h) || l.Seq <= c.filter.after {
		return nil
	}
	l.Stream, l.Data, l.Partial, l.Missing = Gap, []byte("the log is damaged here"), false, int64(bytes)
	return each(l)
}
