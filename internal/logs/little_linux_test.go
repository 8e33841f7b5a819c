package logs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// large is a store of 1 GiB in 128 segments: 16 runs, a block a second, every
// eighth of stderr. The payloads are holes in the files, so that no disk has to
// hold them; only the last block of each segment says something.
func large(t *testing.T) (dir string, blocks int) {
	t.Helper()
	dir = t.TempDir()
	const segmentsOf, blocksOf, payload = 128, 128, 64 << 10
	next, before := uint64(1), uint64(0)
	for i := range segmentsOf {
		run := 1 + i/8
		path := filepath.Join(dir, segment{next, run}.name())
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		var at time.Time
		for j := range blocksOf {
			at = epoch.Add(time.Duration(blocks) * time.Second)
			h := header{stream: Stdout, run: run, lines: payload / maxLine, open: true, length: payload, first: next, before: before, time: at.UnixNano()}
			if j%8 == 7 {
				h.stream = Stderr
			}
			text := []byte(nil)
			if j == blocksOf-1 {
				text = fmt.Appendf(nil, "end of segment %d\n", i)
				h.lines, h.open, h.length = 1, false, len(text)
			}
			var head [headerSize]byte
			h.encode(&head)
			offset := int64(j) * (headerSize + payload)
			if _, err := f.WriteAt(append(head[:], text...), offset); err != nil {
				t.Fatal(err)
			}
			next, before, blocks = h.end(), before+uint64(h.length), blocks+1
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	return dir, blocks
}

// hasRead is how many bytes this process has read so far, from wherever.
func hasRead(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	first, _, _ := bytes.Cut(text, newline)
	n, err := strconv.ParseInt(string(bytes.TrimPrefix(first, []byte("rchar: "))), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestQueriesReadLittle reads parts of a store of 1 GiB. What a query needs not
// look at is not read: segments are passed by their names and times, blocks by
// their headers.
func TestQueriesReadLittle(t *testing.T) { //nolint:paralleltest // it counts what the process reads
	t.Attr("promise", "P11")
	dir, blocks := large(t)
	const segmentBytes = 128 * (64<<10 + headerSize)
	headers := int64(blocks)*pageSize + 128*bufferSize // a page each, and what a segment begins with
	for name, test := range map[string]struct {
		q     Query
		lines int
		most  int64
	}{
		"the last lines":         {Query{Tail: 100}, 100, 2 * segmentBytes},
		"after a number":         {Query{Tail: -1, After: uint64(blocks)*4 - 128*3 - 4}, 4 - 3 + 3, 2 * segmentBytes},
		"since":                  {Query{Tail: -1, Since: epoch.Add(time.Duration(blocks-10) * time.Second)}, 9*4 + 1, 2 * segmentBytes},
		"one run":                {Query{Tail: -1, FromRun: 3, ToRun: 3}, 8 * (127*4 + 1), 9 * segmentBytes},
		"the last of one run":    {Query{Tail: 5, FromRun: 16, ToRun: 16}, 5, 2 * segmentBytes},
		"the other stream":       {Query{Tail: -1, Stream: Stderr}, 128 * (15*4 + 1), headers + 1<<30/8 + 1<<27},
		"text in a run":          {Query{Tail: -1, Grep: regexp.MustCompile(`^end of segment 2\d$`), FromRun: 3, ToRun: 4}, 10, 17 * segmentBytes},
		"nothing, in a few secs": {Query{Tail: -1, Since: epoch.Add(-time.Hour), Until: epoch.Add(-time.Minute)}, 0, headers + 1<<20},
	} {
		before := hasRead(t)
		lines := 0
		if err := OpenReader(dir).Read(t.Context(), test.q, func(Line) error { lines++; return nil }); err != nil {
			t.Fatal(err)
		}
		read := hasRead(t) - before
		t.Logf("%s: %d lines, %d KiB read", name, lines, read>>10)
		if lines != test.lines {
			t.Errorf("%s: %d lines, want %d", name, lines, test.lines)
		}
		if read > test.most {
			t.Errorf("%s: %d bytes were read, want at most %d", name, read, test.most)
		}
	}
}
