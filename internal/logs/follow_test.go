package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"
)

// follower collects what a Follow emits, in its own time.
type follower struct {
	t      *testing.T
	lines  chan Line
	cancel context.CancelFunc
	done   chan error
}

func follow(t *testing.T, dir string, q Query) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t: t, lines: make(chan Line), cancel: cancel, done: make(chan error, 1)}
	go func() {
		f.done <- OpenReader(dir).Follow(ctx, q, func(batch []Line) error {
			for _, l := range batch {
				l.Data = bytes.Clone(l.Data)
				select {
				case f.lines <- l:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	}()
	t.Cleanup(func() { f.stop() })
	return f
}

// take waits for the next n lines.
func (f *follower) take(n int) []Line {
	f.t.Helper()
	var lines []Line
	overdue := time.After(20 * time.Second)
	for range n {
		select {
		case l := <-f.lines:
			lines = append(lines, l)
		case <-overdue:
			f.t.Fatalf("only %d of %d lines came:\n%s", len(lines), n, texts(lines))
		}
	}
	return lines
}

func (f *follower) stop() {
	f.cancel()
	select {
	case err := <-f.done:
		if err != nil {
			f.t.Errorf("follow ended with %v", err)
		}
		f.done <- nil
	case <-time.After(20 * time.Second):
		f.t.Errorf("follow did not end")
	}
}

func TestFollowFromBeforeTheStoreExistsAcrossRuns(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state", "logs", "web")
	f := follow(t, dir, all)
	w := open(t, dir, Limits{})
	one := w.Input(1, Stdout)
	add(t, one, "first\nunfin")
	expectText(t, f.take(1), "1 stdout#1 first\n")
	add(t, one, "ished\n")
	expectText(t, f.take(1), "2 stdout#1 unfinished\n")
	closeAll(t, one)
	if err := w.Event(1, "exited with 1", time.Now()); err != nil {
		t.Fatal(err)
	}
	closeAll(t, w)
	w = open(t, dir, Limits{})
	add(t, w.Input(2, Stderr), "again\n")
	expectText(t, f.take(2), "3 event#1 exited with 1\n4 stderr#2 again\n")
}

func TestFollowBeginsWithWhatTheQuerySays(t *testing.T) {
	t.Parallel()
	dir := many(t)
	for name, test := range map[string]struct {
		q    Query
		want string
	}{
		"tail":  {Query{Tail: 2}, "403 stderr#4 run 4 err 9\n404 event#4 run 4 ended\n405 stdout#5 new ended\n"},
		"after": {Query{Tail: -1, After: 403}, "404 event#4 run 4 ended\n405 stdout#5 new ended\n"},
		"grep":  {Query{Tail: 1, Grep: regexp.MustCompile("ended$")}, "404 event#4 run 4 ended\n405 stdout#5 new ended\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := t.TempDir()
			if err := os.CopyFS(own, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			f := follow(t, own, test.q)
			n := bytes.Count([]byte(test.want), newline)
			first := f.take(n - 1)
			w := open(t, own, Limits{})
			add(t, w.Input(5, Stdout), "new ended\n")
			expectText(t, append(first, f.take(1)...), test.want)
		})
	}
}

func TestFollowOfNothingOldBeginsWithWhatIsWritten(t *testing.T) {
	t.Parallel()
	dir := many(t)
	f := follow(t, dir, Query{Tail: 0})
	w := open(t, dir, Limits{})
	in := w.Input(5, Stdout)
	for range 1000 {
		add(t, in, "new\n")
		select {
		case l := <-f.lines:
			if l.Run != 5 {
				t.Errorf("got an old line: %d %s", l.Seq, l.Data)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Error("no line came")
}

func TestSlowFollowerGetsEveryLineOfManySegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := open(t, dir, Limits{SegmentBytes: 8 << 10})
	f := follow(t, dir, all)
	in := w.Input(1, Stdout)
	const n = 5000
	for i := range n {
		add(t, in, fmt.Sprintf("line %d\n", i+1))
		if i == n/2 {
			f.take(1) // the follower is far behind, and goes on from there
		}
	}
	lines := f.take(n - 1)
	expectContiguous(t, lines)
	if lines[0].Seq != 2 || string(lines[n-2].Data) != fmt.Sprintf("line %d", n) {
		t.Errorf("from %d to %s", lines[0].Seq, lines[n-2].Data)
	}
}

func TestFollowerThatIsOvertakenByRetentionGetsAGap(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P11")
	dir := t.TempDir()
	w := open(t, dir, Limits{SegmentBytes: 4 << 10, MaxBytes: 16 << 10})
	in := w.Input(1, Stdout)
	f := follow(t, dir, all)
	add(t, in, "line 1\n")
	f.take(1)
	var sent int64
	for i := 2; i <= 5000; i++ {
		text := fmt.Sprintf("line %d\n", i)
		sent += int64(len(text))
		add(t, in, text)
	}
	var got, missing int64
	next := uint64(2)
	for next <= 5000 {
		l := f.take(1)[0]
		if l.Stream == Gap {
			missing += l.Missing
			if l.Seq != next {
				t.Errorf("gap has number %d, want %d", l.Seq, next)
			}
			continue
		}
		got += int64(len(l.Data)) + 1
		if l.Seq != next && missing == 0 {
			t.Fatalf("number %d follows %d with no gap", l.Seq, next-1)
		}
		next = l.Seq + 1
	}
	if missing == 0 || got+missing != sent {
		t.Errorf("%d bytes came and %d are missing, of %d", got, missing, sent)
	}
}

func TestFollowGoesOnAfterTheStoreWasDeleted(t *testing.T) {
	t.Parallel()
	for _, anew := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "project", "web")
		w := open(t, dir, Limits{})
		in := w.Input(1, Stdout)
		f := follow(t, dir, all)
		at := time.Now()
		add(t, in, "one\ntwo\n")
		f.take(2)
		if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
			t.Fatal(err)
		}
		if anew {
			closeAll(t, in, w)
			w = open(t, dir, Limits{})
			add(t, w.Input(1, Stdout), "begun anew\n")
			expectText(t, f.take(1), "1 stdout#1 begun anew\n")
			continue
		}
		if err := in.Append([]byte("three\n"), at.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		expectText(t, f.take(2), "3 gap#1 the log file was taken away (8 missing)\n4 stdout#1 three\n")
	}
}

func TestFollowGoesOnAfterTheSegmentWasCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := open(t, dir, Limits{})
	in := w.Input(1, Stdout)
	f := follow(t, dir, all)
	at := time.Now()
	add(t, in, "one\ntwo\n")
	f.take(2)
	if err := os.Truncate(filepath.Join(dir, segment{1, 1}.name()), 0); err != nil {
		t.Fatal(err)
	}
	if err := in.Append([]byte("three\n"), at.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	expectText(t, f.take(2), "3 gap#1 the log file was cut (8 missing)\n4 stdout#1 three\n")
}

func TestFollowEndsWithUntil(t *testing.T) {
	t.Parallel()
	dir := many(t)
	n := 0
	count := func(batch []Line) error { n += len(batch); return nil }
	if err := OpenReader(dir).Follow(t.Context(), Query{Tail: -1, Until: epoch.Add(time.Hour)}, count); err != nil || n != 404 {
		t.Errorf("until the past: %d lines, %v", n, err)
	}
	n = 0
	if err := OpenReader(dir).Follow(t.Context(), Query{Tail: -1, Until: time.Now().Add(50 * time.Millisecond)}, count); err != nil || n != 404 {
		t.Errorf("until the near future: %d lines, %v", n, err)
	}
	enough := errors.New("enough")
	if err := OpenReader(dir).Follow(t.Context(), all, func([]Line) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("ended by emit: %v", err)
	}
}

func TestManyFollowersShareOneWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := open(t, dir, Limits{})
	in := w.Input(1, Stdout)
	var wg sync.WaitGroup
	for range 100 {
		f := follow(t, dir, all)
		wg.Go(func() {
			for i := range 10 {
				select {
				case l := <-f.lines:
					if l.Seq != uint64(i+1) {
						t.Errorf("number %d, want %d", l.Seq, i+1)
					}
				case <-time.After(20 * time.Second):
					t.Error("no line came")
					return
				}
			}
		})
	}
	for i := range 10 {
		add(t, in, fmt.Sprintf("line %d\n", i))
	}
	wg.Wait()
}
