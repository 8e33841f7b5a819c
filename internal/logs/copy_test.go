package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// mixed is a store of small and of large blocks in several segments, and what was
// written to stdout.
func mixed(t *testing.T) (dir string, all []byte) {
	t.Helper()
	dir = t.TempDir()
	w := open(t, dir, Limits{SegmentBytes: 300 << 10})
	in, errs := w.Input(1, Stdout), w.Input(1, Stderr)
	for i := range 40 {
		text := bytes.Repeat(fmt.Appendf(nil, "line %d of some length\n", i), 1+i%3*4000)
		all = append(all, text...)
		add(t, in, string(text))
		add(t, errs, "not this\n")
	}
	closeAll(t, in, errs, w)
	return dir, all
}

// Whatever kind of file the output is, it gets what was written.
func TestCopyToFiles(t *testing.T) {
	t.Parallel()
	dir, want := mixed(t)
	for name, flags := range map[string]int{"new": os.O_WRONLY | os.O_CREATE, "appended": os.O_WRONLY | os.O_CREATE | os.O_APPEND} {
		path := filepath.Join(t.TempDir(), name)
		out, err := os.OpenFile(path, flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		err = OpenReader(dir).Copy(t.Context(), Query{Tail: -1, Stream: Stdout}, false, out)
		closeAll(t, out)
		if got, _ := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %d bytes, want %d", name, err, len(got), len(want))
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	copied := make(chan error, 1)
	go func() {
		err := OpenReader(dir).Copy(context.Background(), Query{Tail: -1, Stream: Stdout}, false, w)
		_ = w.Close()
		copied <- err
	}()
	got, err := io.ReadAll(r)
	if copyErr := <-copied; err != nil || copyErr != nil || !bytes.Equal(got, want) {
		t.Errorf("pipe: %v, %v, %d bytes, want %d", err, copyErr, len(got), len(want))
	}
	closeAll(t, r)
}

// A pipe that a follower writes to gets everything in order, while it is written
// and across segments, and an end of the reader ends the follower.
func TestFollowIntoAPipe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := open(t, dir, Limits{SegmentBytes: 200 << 10})
	in := store.Input(1, Stdout)
	add(t, in, "first\n")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	done := make(chan error, 1)
	go func() { done <- OpenReader(dir).Copy(context.Background(), all, true, w) }()
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := io.ReadFull(r, got); string(got) != want {
			t.Fatalf("%v after %d of %d bytes", err, n, len(want))
		}
	}
	expect("first\n")
	for i := range 20 {
		text := string(bytes.Repeat(fmt.Appendf(nil, "%d and so on\n", i), 1+i%4*3000))
		add(t, in, text)
		expect(text)
	}
	closeAll(t, r)
	add(t, in, string(bytes.Repeat([]byte("nobody reads this\n"), 4000)))
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error of a pipe that nobody reads")
		}
	case <-time.After(20 * time.Second):
		t.Error("the follower did not end")
	}
}
