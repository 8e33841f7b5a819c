package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// recorded is a segment in memory.
type recorded struct{ bytes.Buffer }

func (r *recorded) Append(parts [][]byte) (n int, err error) {
	for _, p := range parts {
		m, _ := r.Write(p)
		n += m
	}
	return n, nil
}

func (r *recorded) Truncate(size int64) error  { r.Buffer.Truncate(int(size)); return nil }
func (r *recorded) Stat() (int64, bool, error) { return int64(r.Len()), true, nil }
func (r *recorded) Close() error               { return nil }

// FuzzSplit writes bytes in pieces. No byte is lost, added or moved, whatever
// they are and wherever they were cut; no line is longer than 16 KiB, and what
// waits for its end is no longer than that either.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("one\ntwo\r\n\x00\n\nno end"), []byte{1, 2, 3}, uint16(0))
	f.Add([]byte("\xff\xfe\xe2\x82\xac\n"), []byte{1}, uint16(0))
	f.Add([]byte("\n"), []byte{200}, uint16(maxLine-1))
	f.Add([]byte("\n"), []byte{200}, uint16(maxLine))
	f.Add([]byte("\n"), []byte{0, 255, 1}, uint16(maxLine+1))
	f.Add([]byte("a\nb"), []byte{255, 0}, uint16(3*maxLine))
	f.Add([]byte{}, []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, text, cuts []byte, long uint16) {
		// A line that is long enough to be cut is not found by chance.
		want := append(bytes.Repeat([]byte{'x'}, int(long)), text...)
		segment := &recorded{}
		w := &Writer{limits: Limits{SegmentBytes: 1 << 40}, next: 1}
		w.create = func(string) (file, error) { return segment, nil }
		in := w.Input(1, Stdout)
		for rest, i := want, 0; len(rest) > 0; i++ {
			n := len(rest)
			if len(cuts) > 0 {
				// Short pieces, and those around the length of a line.
				if n = int(cuts[i%len(cuts)]); n >= 128 {
					n = (n-128)*1024/8 + 1
				}
			}
			n = min(max(n, 1), len(rest))
			if err := in.Append(rest[:n], time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			if len(in.pending) > maxLine || cap(in.pending) > 2*maxLine {
				t.Fatalf("%d bytes wait for the end of a line, in %d", len(in.pending), cap(in.pending))
			}
			rest = rest[n:]
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		var got []byte
		next := uint64(1)
		for b := segment.Bytes(); len(b) > 0; {
			h, ok := decode(b)
			if !ok || h.first != next || h.before != uint64(len(got)) {
				t.Fatalf("block %+v at line %d and byte %d", h, next, len(got))
			}
			payload := b[headerSize : headerSize+h.length]
			lines := 0
			for rest := payload; len(rest) > 0; lines++ {
				data, after, _ := split(rest)
				if len(data) > maxLine || len(after) >= len(rest) {
					t.Fatalf("a line of %d bytes", len(data))
				}
				rest = after
			}
			if lines != h.lines || h.open != (payload[len(payload)-1] != '\n') {
				t.Fatalf("%d lines in a block that says %+v", lines, h)
			}
			got, next, b = append(got, payload...), h.end(), b[headerSize+h.length:]
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came back of %d", len(got), len(want))
		}
	})
}

// numbered fails unless the numbers of the lines that reading everything gives
// go up, and a gap stands wherever they jump.
func numbered(t *testing.T, lines []Line) {
	t.Helper()
	for i := 1; i < len(lines); i++ {
		before, l := lines[i-1], lines[i]
		switch {
		case l.Seq == before.Seq+1:
		case l.Seq > before.Seq && before.Stream == Gap: // it stands for several
		case l.Seq > before.Seq:
			t.Fatalf("%d follows %d and nothing says that lines are missing", l.Seq, before.Seq)
		default:
			t.Fatalf("%d follows %d", l.Seq, before.Seq)
		}
	}
}

// seal makes the headers in content valid as far as their check goes, or a
// fuzzer would never come past it.
func seal(content []byte) {
	for rest := content; ; {
		i := bytes.Index(rest, magic[:])
		if i < 0 || len(rest)-i < headerSize {
			return
		}
		rest = rest[i:]
		binary.LittleEndian.PutUint32(rest[20:], check(rest))
		rest = rest[len(magic):]
	}
}

// FuzzSegment reads a segment of any content. Numbers go up, what is missing
// is said, no more bytes come out than are in, the last lines are among all,
// and a writer goes on behind it.
func FuzzSegment(f *testing.F) {
	content := sample(f)
	f.Add(content, true)
	f.Add(content[:len(content)-5], true)
	f.Add(content[:headerSize], true)
	f.Add(append(make([]byte, 100), content...), false)
	f.Fuzz(func(t *testing.T, content []byte, repair bool) {
		seal(content)
		dir := t.TempDir()
		path := filepath.Join(dir, segment{1, 1}.name())
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		everything := read(t, dir, all)
		numbered(t, everything)
		total := 0
		for _, l := range everything {
			total += len(l.Data)
		}
		if total > len(content)+1000 {
			t.Fatalf("%d bytes of lines in %d", total, len(content))
		}
		there := map[string]bool{}
		for _, l := range everything {
			there[texts([]Line{l})] = true
		}
		last, written := read(t, dir, Query{Tail: 3}), 0
		for _, l := range last {
			if l.Stream == Gap {
				continue // one that no block says comes beside those that are counted
			}
			if written++; !there[texts([]Line{l})] || written > 3 {
				t.Fatalf("the last three are\n%.2000s\nof\n%.2000s", texts(last), texts(everything))
			}
		}
		for _, q := range []Query{{Tail: 2, Grep: regexp.MustCompile("a.b")}, {Tail: -1, After: 5}} {
			read(t, dir, q)
		}
		if !repair {
			return
		}
		w, err := OpenWriter(dir, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if w.next > 1<<61 {
			return // beyond the numbers there are
		}
		in := w.Input(9, Stdout)
		if err := errors.Join(in.Append([]byte("written after\n"), time.Now()), w.Close()); err != nil {
			t.Fatal(err)
		}
		lines, err := Last(dir, 1, 9)
		if err != nil || len(lines) != 1 || string(lines[0].Data) != "written after" {
			t.Fatalf("a repaired store ends with %v, %v", lines, err)
		}
		numbered(t, read(t, dir, all))
	})
}

// sample is the content of a segment with a cut line, an open one and an event.
func sample(f *testing.F) []byte {
	f.Helper()
	dir := f.TempDir()
	w, err := OpenWriter(dir, Limits{})
	if err != nil {
		f.Fatal(err)
	}
	in := w.Input(1, Stderr)
	for _, text := range []string{"one\ntwo\n", strings.Repeat("x", maxLine+5) + "\n", "three\n", "four\nfive\n", "no end"} {
		if err := in.Append([]byte(text), epoch); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(in.Close(), w.Event(1, "exited with 0", epoch), w.Close()); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, segment{1, 1}.name()))
	if err != nil {
		f.Fatal(err)
	}
	return content
}

// FuzzDamage spoils a segment in one place and lets a writer go on. Each line
// is then there as it was written, or a gap stands in its place.
func FuzzDamage(f *testing.F) {
	content := sample(f)
	name := segment{1, 1}.name()
	whole := f.TempDir()
	if err := os.WriteFile(filepath.Join(whole, name), content, 0o600); err != nil {
		f.Fatal(err)
	}
	written := map[uint64]string{}
	if err := OpenReader(whole).Read(f.Context(), all, func(l Line) error {
		written[l.Seq] = string(l.Data)
		return nil
	}); err != nil {
		f.Fatal(err)
	}
	payload := func(at int) bool { // a byte of what the service wrote has no check
		for b := content; len(b) > 0; {
			h, _ := decode(b)
			start := len(content) - len(b) + headerSize
			if at >= start && at < start+h.length {
				return true
			}
			b = b[headerSize+h.length:]
		}
		return false
	}
	for _, at := range []uint16{0, 5, 13, 20, headerSize - 1, headerSize, headerSize + 8, headerSize + 8 + 16} {
		f.Add(at, []byte{0xff})
		f.Add(at, make([]byte, 200))
	}
	f.Add(uint16(len(content)-20), []byte("\xb1LGb"))
	f.Fuzz(func(t *testing.T, at uint16, garbage []byte) {
		spoiled := bytes.Clone(content)
		n := copy(spoiled[min(int(at), len(spoiled)):], garbage)
		touched := false
		for i := range n {
			touched = touched || payload(int(at)+i)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := OpenWriter(dir, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Event(2, "after", epoch), w.Close()); err != nil {
			t.Fatal(err)
		}
		lines := read(t, dir, all)
		numbered(t, lines)
		if len(lines) == 0 || string(lines[len(lines)-1].Data) != "after" {
			t.Fatalf("ends with %s", texts(lines))
		}
		for _, l := range lines[:len(lines)-1] {
			if want, known := written[l.Seq]; l.Stream != Gap && !touched && (!known || string(l.Data) != want) {
				t.Fatalf("line %d is %q and was %q", l.Seq, l.Data, want)
			}
		}
	})
}

// FuzzFullDisk writes while a disk is full by turns. What is stored and what
// the gaps say is missing add up to what was written, in order, and memory
// stays bounded.
func FuzzFullDisk(f *testing.F) {
	f.Add([]byte{20, 255, 30, 0, 40, 255, 50})
	f.Add([]byte{255, 100, 0, 100})
	f.Add([]byte{40, 254, 201, 201, 201, 201, 201, 0, 7})
	f.Add([]byte{1, 253, 3, 2, 250, 5, 0, 249, 9, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		if len(steps) > 64 {
			return
		}
		w, room := fullDisk(t, t.TempDir(), -1)
		in := [2]*Input{w.Input(1, Stdout), w.Input(1, Stderr)}
		var sent [2][]byte
		for i, step := range steps {
			switch {
			case step == 0:
				relieve(t, w, room)
			case step >= 240: // so much still fits
				w.mu.Lock()
				*room = int(step-240) * 40
				w.mu.Unlock()
			default: // a piece, long from 200 on, of a line that is numbered
				which := int(step) % 2
				piece := fmt.Appendf(nil, "%d.%d ", which, i)
				piece = append(piece, bytes.Repeat([]byte{'x'}, int(step)+max(0, int(step)-200)*2000)...)
				if step%3 > 0 {
					piece = append(piece, '\n')
				}
				sent[which] = append(sent[which], piece...)
				if err := in[which].Append(piece, epoch); err != nil && !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				if w.held != nil && w.held.size > 2*maxHeld {
					t.Fatalf("holds %d bytes", w.held.size)
				}
			}
		}
		relieve(t, w, room)
		closeAll(t, in[0], in[1], w)
		lines := read(t, w.dir, all)
		expectContiguous(t, lines)
		missing := int64(0)
		for _, l := range lines {
			missing += l.Missing
		}
		kept := int64(0)
		for i, s := range []Stream{Stdout, Stderr} {
			rest := sent[i]
			for _, l := range lines {
				if l.Stream != s {
					continue
				}
				text := l.Data
				if !l.Partial {
					text = append(bytes.Clone(l.Data), '\n')
				}
				at := bytes.Index(rest, text)
				if at < 0 || at > 0 && missing == 0 {
					t.Fatalf("%s has %.40q where %.40q was due", s, text, rest)
				}
				rest = rest[at+len(text):]
				kept += int64(len(text))
			}
		}
		if all := int64(len(sent[0]) + len(sent[1])); kept+missing != all {
			t.Fatalf("%d stored and %d missing of %d", kept, missing, all)
		}
	})
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;:]*m")

// FuzzSafe shows any bytes on a terminal. Nothing but colours reaches it that
// it would not simply draw, and what is safe already stays as it is.
func FuzzSafe(f *testing.F) {
	for _, s := range []string{
		"plain", "\x1b[31mred\x1b[0m", "\x1b]52;c;ZWNobyBoaQ==\x07", "\x1b]0;title\x1b\\", "\x1b[2J\x1b[H", "\x1bP1$q\x1b\\",
		"10%\r20%\r", "\x9b31m", "\u009b2J", "a\u202eb", "\x1b[8mhidden", "\x1b[38;5;8;8m", "\xe2\x82", "\x1b[31", "\x1b\x1b[1m[2J", "\x1b[1;\rm",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got := Safe(line)
		if !utf8.ValidString(got) {
			t.Fatalf("%q is shown as %q, which is not UTF-8", line, got)
		}
		for _, r := range sgr.ReplaceAllString(got, "") {
			if unicode.IsControl(r) && r != '\t' || unicode.In(r, unicode.Bidi_Control) {
				t.Fatalf("%q is shown as %q, with %U in it", line, got, r)
			}
		}
		if again := Safe([]byte(got)); again != got {
			t.Fatalf("%q is shown as %q, and that as %q", line, got, again)
		}
		// A line is one line, and its colours end with it.
		if colours := sgr.FindAllString(got, -1); len(colours) > 0 {
			if last := colours[len(colours)-1]; last != "\x1b[0m" && last != "\x1b[m" {
				t.Fatalf("%q leaves the terminal in %q", line, last)
			}
		}
	})
}
