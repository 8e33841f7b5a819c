package logs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

var all = Query{Tail: -1}

// read returns every line that q asks for, with data of its own.
func read(t *testing.T, dir string, q Query) []Line {
	t.Helper()
	var lines []Line
	err := OpenReader(dir).Read(t.Context(), q, func(l Line) error {
		l.Data = bytes.Clone(l.Data)
		lines = append(lines, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// written puts the bytes of one stream together again.
func written(lines []Line, s Stream, run int) []byte {
	var b []byte
	for _, l := range lines {
		if l.Stream != s || l.Run != run {
			continue
		}
		b = append(b, l.Data...)
		if !l.Partial {
			b = append(b, '\n')
		}
	}
	return b
}

func texts(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%d %s#%d %s", l.Seq, l.Stream, l.Run, l.Data)
		if l.Partial {
			b.WriteString(" …")
		}
		if l.Missing > 0 {
			fmt.Fprintf(&b, " (%d missing)", l.Missing)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func expectText(t *testing.T, lines []Line, want string) {
	t.Helper()
	if got := texts(lines); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func expectContiguous(t *testing.T, lines []Line) {
	t.Helper()
	for i, l := range lines {
		if want := lines[0].Seq + uint64(i); l.Seq != want {
			t.Fatalf("line %d has number %d, want %d", i, l.Seq, want)
		}
		if len(l.Data) > maxLine {
			t.Fatalf("line %d has %d bytes", l.Seq, len(l.Data))
		}
	}
}

func open(t *testing.T, dir string, limits Limits) *Writer {
	t.Helper()
	w, err := OpenWriter(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func closeAll(t *testing.T, list ...interface{ Close() error }) {
	t.Helper()
	for _, c := range list {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func add(t *testing.T, in *Input, text string) {
	t.Helper()
	if err := in.Append([]byte(text), time.Now()); err != nil {
		t.Fatal(err)
	}
}

func TestLinesComeBackWithNumberStreamAndTime(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs", "web")
	w := open(t, dir, Limits{})
	out, errs := w.Input(1, Stdout), w.Input(1, Stderr)
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	if err := out.Append([]byte("one\ntwo\nthr"), at); err != nil {
		t.Fatal(err)
	}
	add(t, errs, "oops\r\n")
	later := at.Add(time.Minute)
	if err := out.Append([]byte("ee\nno end"), later); err != nil {
		t.Fatal(err)
	}
	closeAll(t, out, errs)
	if err := w.Event(1, "exited with 1;\nrestarting in 0.5s", later); err != nil {
		t.Fatal(err)
	}
	again := w.Input(2, Stdout)
	add(t, again, "\n")
	closeAll(t, again, w)

	lines := read(t, dir, all)
	expectText(t, lines, "1 stdout#1 one\n2 stdout#1 two\n3 stderr#1 oops\r\n4 stdout#1 three\n5 stdout#1 no end …\n"+
		"6 event#1 exited with 1; restarting in 0.5s\n7 stdout#2 \n")
	if !lines[0].Time.Equal(at) || !lines[3].Time.Equal(later) {
		t.Errorf("times %v and %v, want %v and %v", lines[0].Time, lines[3].Time, at, later)
	}
	for _, path := range []string{dir, filepath.Join(dir, segment{1, 1}.name())} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", path, info.Mode())
		}
	}
	if err := out.Append([]byte("late"), at); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
}

func TestLinesAreCutAt16KiB(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P12 F52")
	for length, want := range map[int][]int{
		maxLine - 1:     {maxLine - 1},
		maxLine:         {maxLine},
		maxLine + 1:     {maxLine, 1},
		2 * maxLine:     {maxLine, maxLine},
		3*maxLine + 100: {maxLine, maxLine, maxLine, 100},
	} {
		for _, step := range []int{1000, maxLine, maxLine + 1, 64 << 10} {
			dir := t.TempDir()
			w := open(t, dir, Limits{})
			in := w.Input(1, Stdout)
			text := strings.Repeat("x", length) + "\nnext\n"
			for rest := text; rest != ""; {
				n := min(step, len(rest))
				add(t, in, rest[:n])
				rest = rest[n:]
			}
			closeAll(t, in, w)
			lines := read(t, dir, all)
			if len(lines) != len(want)+1 {
				t.Fatalf("%d bytes in steps of %d: %d lines", length, step, len(lines))
			}
			for i, n := range want {
				if len(lines[i].Data) != n || lines[i].Partial != (i < len(want)-1) {
					t.Errorf("%d bytes in steps of %d: line %d has %d, partial %v", length, step, i, len(lines[i].Data), lines[i].Partial)
				}
			}
		}
	}
}

// garbage is random output: short and long lines, NUL, CRLF and invalid UTF-8.
func garbage(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		switch r.IntN(20) {
		case 0:
			b = append(b, bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(3*maxLine))...)
		case 1:
			b = append(b, "\r\n\x00\xff\xc3"...)
		case 2:
			b = append(b, magic[:]...)
		default:
			b = append(b, bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(200))...)
			b = append(b, '\n')
		}
	}
	return b[:n]
}

func TestAnyBytesInAnyPiecesComeBack(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P12 F54 F55")
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		limits := Limits{SegmentBytes: 100 << 10}
		w := open(t, dir, limits)
		in := []*Input{w.Input(1, Stdout), w.Input(1, Stderr)}
		want := [][]byte{garbage(r, 400<<10), garbage(r, 100<<10)}
		rest := [][]byte{want[0], want[1]}
		for len(rest[0])+len(rest[1]) > 0 {
			i := r.IntN(2)
			n := min(r.IntN(1<<r.IntN(18)+1), len(rest[i]))
			add(t, in[i], string(rest[i][:n]))
			rest[i] = rest[i][n:]
			if r.IntN(200) == 0 && len(in[0].pending)+len(in[1].pending) == 0 {
				closeAll(t, in[0], in[1], w)
				w = open(t, dir, limits)
				in = []*Input{w.Input(1, Stdout), w.Input(1, Stderr)}
			}
		}
		closeAll(t, in[0], in[1], w)
		lines := read(t, dir, all)
		expectContiguous(t, lines)
		for i, s := range []Stream{Stdout, Stderr} {
			got := written(lines, s, 1)
			if !bytes.Equal(bytes.TrimSuffix(got, newline), bytes.TrimSuffix(want[i], newline)) {
				t.Fatalf("seed %d: %s differs", seed, s)
			}
		}
	}
}

func TestHundredMegabyteLineInBoundedMemory(t *testing.T) {
	t.Attr("promise", "P12 F52")
	dir := t.TempDir()
	w := open(t, dir, Limits{})
	in := w.Input(1, Stdout)
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	chunk := bytes.Repeat([]byte("a"), 64<<10)
	const chunks = 100_000_000 / (64 << 10)
	for range chunks {
		if err := in.Append(chunk, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	closeAll(t, in, w)
	total, partial := 0, 0
	err := OpenReader(dir).Read(t.Context(), all, func(l Line) error {
		total += len(l.Data)
		if l.Partial {
			partial++
		}
		return nil
	})
	goruntime.ReadMemStats(&after)
	if err != nil || total != chunks*len(chunk) || partial != total/maxLine {
		t.Errorf("%d bytes in %d partial lines, %v", total, partial, err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("allocated %d bytes", got)
	}
}

func TestKilledWriterIsRepairedAtEveryByte(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P11")
	origin := t.TempDir()
	w := open(t, origin, Limits{})
	in := w.Input(3, Stderr)
	add(t, in, "first\n")
	whole := w.size
	last := "second\nthird\nfourth\n"
	add(t, in, last)
	closeAll(t, in, w)
	name := segment{1, 3}.name()
	content, err := os.ReadFile(filepath.Join(origin, name))
	if err != nil {
		t.Fatal(err)
	}
	for cut := whole; cut < int64(len(content)); cut++ {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), content[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if got := read(t, dir, all); len(got) != 1 {
			t.Fatalf("cut at %d: a reader sees %d lines before the repair", cut, len(got))
		}
		w := open(t, dir, Limits{})
		in := w.Input(4, Stdout)
		add(t, in, "after\n")
		closeAll(t, in, w)
		lines := read(t, dir, all)
		expectContiguous(t, lines)
		kept, missing := "", int64(0)
		for _, l := range lines[1 : len(lines)-1] {
			missing += l.Missing
			if l.Stream == Stderr {
				kept += string(l.Data)
				if !l.Partial {
					kept += "\n"
				}
			}
		}
		if !strings.HasPrefix(last, kept) {
			t.Errorf("cut at %d: kept %q", cut, kept)
		}
		if cut >= whole+headerSize && (int64(len(kept)) != cut-whole-headerSize || missing != int64(len(last)-len(kept))) {
			t.Errorf("cut at %d: kept %q and %d missing", cut, kept, missing)
		}
		if end := lines[len(lines)-1]; string(end.Data) != "after" || end.Run != 4 {
			t.Errorf("cut at %d: ends with %s", cut, end.Data)
		}
	}
}

func TestGarbageInAStoreIsPassedOver(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string, content []byte) error{
		"garbage at the end":       func(p string, c []byte) error { return os.WriteFile(p, append(c, make([]byte, 500)...), 0o600) },
		"garbage in the middle":    func(p string, c []byte) error { copy(c[200:], "garbage"); return os.WriteFile(p, c, 0o600) },
		"garbage and nothing else": func(p string, _ []byte) error { return os.WriteFile(p, make([]byte, 500), 0o600) },
		"empty":                    func(p string, _ []byte) error { return os.WriteFile(p, nil, 0o600) },
		"a directory":              func(p string, _ []byte) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
		"a link":                   func(p string, _ []byte) error { return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p)) },
		"a named pipe":             func(p string, _ []byte) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w := open(t, dir, Limits{})
			in := w.Input(1, Stdout)
			for range 10 {
				add(t, in, "before\n")
			}
			closeAll(t, in, w)
			path := filepath.Join(dir, segment{1, 1}.name())
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(path, content); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			w = open(t, dir, Limits{})
			in = w.Input(2, Stdout)
			add(t, in, "after\n")
			closeAll(t, in, w)
			lines := read(t, dir, all)
			end := lines[len(lines)-1]
			if string(end.Data) != "after" {
				t.Errorf("ends with %q", end.Data)
			}
			for i := 1; i < len(lines); i++ {
				if lines[i].Seq <= lines[i-1].Seq {
					t.Errorf("number %d follows %d", lines[i].Seq, lines[i-1].Seq)
				}
			}
		})
	}
}

func TestDamageInTheMiddleIsAGap(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P11")
	dir := t.TempDir()
	w := open(t, dir, Limits{})
	in := w.Input(1, Stdout)
	for _, text := range []string{"one\n", "two\n", "three\n", "four\n"} {
		add(t, in, text)
	}
	closeAll(t, in, w)
	path := filepath.Join(dir, segment{1, 1}.name())
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[headerSize+4+3] ^= 1 // in the magic of the second block
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	expectText(t, read(t, dir, all), "1 stdout#1 one\n2 gap#1 these lines are no longer stored (4 missing)\n3 stdout#1 three\n4 stdout#1 four\n")
}

func TestSegmentsRotateAndOldOnesGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	began := make(chan struct{}, 1000)
	w := open(t, dir, Limits{SegmentBytes: 4 << 10, MaxBytes: 20 << 10, Rotated: func() { began <- struct{}{} }})
	in := w.Input(1, Stdout)
	for i := range 2000 {
		add(t, in, fmt.Sprintf("line %d\n", i+1))
	}
	closeAll(t, in, w)
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 4 || len(list) > 6 {
		t.Errorf("%d segments", len(list))
	}
	lines := read(t, dir, all)
	if first := lines[0]; first.Seq != 1 || first.Stream != Gap || first.Missing == 0 {
		t.Errorf("of what was removed it says %+v", first)
	}
	lines = lines[1:]
	expectContiguous(t, lines)
	if end := lines[len(lines)-1]; end.Seq != 2000 || string(end.Data) != "line 2000" {
		t.Errorf("ends with %d %s", end.Seq, end.Data)
	}
	<-began
}

func TestPruneTakesTheOldestOfAllStores(t *testing.T) {
	t.Parallel()
	now := time.Now()
	root := t.TempDir()
	make1 := func(store string, first uint64, age time.Duration) string {
		dir := filepath.Join(root, store)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, segment{first, 1}.name())
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ancient := make1("a", 1, 10*24*time.Hour)
	aOld := make1("a", 10, 3*time.Hour)
	aNew := make1("a", 20, time.Hour)
	bOld := make1("b", 1, 2*time.Hour)
	bNew := make1("b", 5, time.Hour)
	only := make1("c", 1, 30*24*time.Hour)
	dirs := []string{filepath.Join(root, "a"), filepath.Join(root, "b"), filepath.Join(root, "c"), filepath.Join(root, "none")}
	expect := func(want ...string) {
		t.Helper()
		got, err := filepath.Glob(filepath.Join(root, "*", "*.log"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("left are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	prune := func(bytes int64, age time.Duration) {
		t.Helper()
		if err := Prune(dirs, bytes, age, now); err != nil {
			t.Fatal(err)
		}
	}
	prune(0, 0)
	expect(ancient, aOld, aNew, bOld, bNew, only)
	prune(0, 7*24*time.Hour)
	expect(aOld, aNew, bOld, bNew, only)
	prune(400, 7*24*time.Hour)
	expect(aNew, bOld, bNew, only)
	prune(1, 0)
	expect(aNew, bNew, only)
}

func TestSegmentTakenAwayUnderTheWriter(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P11 F60")
	const all3 = "1 stdout#1 one\n2 stdout#1 two\n3 stdout#1 three\n"
	const gone21, gone14 = "1 gap#1 these lines are no longer stored (21 missing)\n", "1 gap#1 these lines are no longer stored (14 missing)\n"
	const away, cut = "5 gap#1 the log file was taken away ", "5 gap#1 the log file was cut "
	for name, test := range map[string]struct {
		spoil func(path string) error
		want  string // between what is written before somebody looks, and after
	}{
		"deleted":            {os.Remove, gone21 + away + "(21 missing)\n"},
		"moved":              {func(path string) error { return os.Rename(path, path+".1") }, gone21 + away + "(21 missing)\n"},
		"a link":             {func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) }, gone21 + away + "(21 missing)\n"},
		"with its directory": {func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, gone21 + away + "(21 missing)\n"},
		"cut":                {func(path string) error { return os.Truncate(path, 0) }, gone14 + "4 stdout#1 unseen\n" + cut + "(14 missing)\n"},
		"cut behind a block": {
			func(path string) error { return os.Truncate(path, headerSize+8) },
			"1 stdout#1 one\n2 stdout#1 two\n3 gap#1 these lines are no longer stored (6 missing)\n4 stdout#1 unseen\n" + cut + "(6 missing)\n",
		},
		"a copy": {func(path string) error {
			content, err := os.ReadFile(path)
			return errors.Join(err, os.Remove(path), os.WriteFile(path, content, 0o600))
		}, all3 + "4 gap#1 these lines are no longer stored (7 missing)\n" + away + "(7 missing)\n"},
		"written to": {func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("somebody else's\n")
			return errors.Join(err, f.Close())
		}, all3 + "4 stdout#1 unseen\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "store")
			w := open(t, dir, Limits{})
			in := w.Input(1, Stdout)
			at := time.Now()
			write := func(text string, at time.Time) {
				t.Helper()
				if err := in.Append([]byte(text), at); err != nil {
					t.Fatal(err)
				}
			}
			write("one\ntwo\n", at)
			write("three\n", at)
			if err := test.spoil(filepath.Join(dir, segment{1, 1}.name())); err != nil {
				t.Fatal(err)
			}
			write("unseen\n", at)
			write("last\n", at.Add(2*time.Second))
			lines := read(t, dir, all)
			expectText(t, lines[:len(lines)-1], test.want)
			if end := lines[len(lines)-1]; string(end.Data) != "last" {
				t.Errorf("ends with %q", end.Data)
			}
		})
	}
}

// disk is a disk that can be full.
type disk struct {
	file
	room *int // bytes that fit; negative is all
}

func (d disk) Append(parts [][]byte) (int, error) {
	if *d.room < 0 {
		return d.file.Append(parts)
	}
	var flat []byte
	for _, p := range parts {
		flat = append(flat, p...)
	}
	n := min(*d.room, len(flat))
	*d.room -= n
	if n < len(flat) {
		_, err := d.file.Append([][]byte{flat[:n]})
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return d.file.Append([][]byte{flat})
}

func fullDisk(t *testing.T, dir string, room int) (*Writer, *int) {
	t.Helper()
	w := open(t, dir, Limits{})
	w.create = func(path string) (file, error) {
		f, err := createSegment(path)
		return disk{f, &room}, err
	}
	return w, &room
}

// relieve makes room and lets the writer try again.
func relieve(t *testing.T, w *Writer, room *int) {
	t.Helper()
	w.mu.Lock()
	*room = -1
	w.mu.Unlock()
	w.retry()
	if err := w.Err(); err != nil {
		t.Fatalf("with room again: %v", err)
	}
}

func TestFullDiskLosesNothingThatFitsInMemory(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P11 F59")
	dir := t.TempDir()
	w, room := fullDisk(t, dir, 130)
	out, errs := w.Input(1, Stdout), w.Input(1, Stderr)
	add(t, out, "stored\nbegun ")
	if err := errs.Append([]byte(strings.Repeat("e", 100)+"\n"), time.Now()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("append to a full disk: %v", err)
	}
	for _, text := range []string{"and ended\nbegun again ", "and ended again\nlast"} {
		if err := out.Append([]byte(text), time.Now()); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("append to a full disk: %v", err)
		}
	}
	if err := out.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("close on a full disk: %v", err)
	}
	expectText(t, read(t, dir, all), "1 stdout#1 stored\n")
	relieve(t, w, room)
	add(t, errs, "well\n")
	closeAll(t, errs, w)
	expectText(t, read(t, dir, all), "1 stdout#1 stored\n2 stderr#1 "+strings.Repeat("e", 100)+"\n3 stdout#1 begun and ended\n"+
		"4 stdout#1 begun again and ended again\n5 stdout#1 last …\n6 stderr#1 well\n")
}

func TestFullDiskLeavesAGapThatCountsWhatIsLost(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P11 F59")
	dir := t.TempDir()
	w, room := fullDisk(t, dir, 100)
	in := w.Input(1, Stdout)
	add(t, in, "stored\nbegun ")
	sent := 0
	for i := range 10_000 {
		text := fmt.Sprintf("line %06d of what does not fit\n", i)
		sent += len(text)
		if err := in.Append([]byte(text), time.Now()); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("append to a full disk: %v", err)
		}
		if w.held.size > 2*maxHeld {
			t.Fatalf("holds %d bytes", w.held.size)
		}
	}
	relieve(t, w, room)
	add(t, in, "well\n")
	closeAll(t, in, w)
	lines := read(t, dir, all)
	expectContiguous(t, lines)
	expectText(t, lines[:2], "1 stdout#1 stored\n2 stdout#1 begun  …\n")
	gap := lines[2]
	if gap.Stream != Gap || string(gap.Data) != "no space left on device" {
		t.Errorf("line 3 is %s %q", gap.Stream, gap.Data)
	}
	kept := len(written(lines[3:len(lines)-1], Stdout, 1))
	if gap.Missing+int64(kept) != int64(sent) || kept < maxHeld/2 {
		t.Errorf("%d missing and %d kept of %d", gap.Missing, kept, sent)
	}
	if end := lines[len(lines)-2]; !strings.HasPrefix(string(end.Data), "line 009999") {
		t.Errorf("the newest line was not kept: %s", end.Data)
	}
}

func TestFullDiskWithChunksLargerThanMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, room := fullDisk(t, dir, 0)
	in := w.Input(1, Stdout)
	big := bytes.Repeat([]byte("0123456789abcde\n"), 100_000)
	_ = in.Append(big, time.Now())
	_ = in.Append(big, time.Now())
	_ = w.Event(1, "exited with 1", time.Now())
	relieve(t, w, room)
	lines := read(t, dir, all)
	expectContiguous(t, lines)
	if kept := len(written(lines, Stdout, 1)); lines[0].Missing+int64(kept) != int64(2*len(big)) {
		t.Errorf("%d missing and %d kept of %d", lines[0].Missing, kept, 2*len(big))
	}
	if end := lines[len(lines)-1]; end.Stream != Event {
		t.Errorf("ends with %s %s", end.Stream, end.Data)
	}
}

func TestStoreThatCannotBeMadeNamesThePath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWriter(filepath.Join(path, "web"), Limits{}); !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if lines, err := Last(filepath.Join(path+"-missing", "web"), 20, 0); err != nil || len(lines) != 0 {
		t.Errorf("last lines of nothing: %v, %v", lines, err)
	}
}
