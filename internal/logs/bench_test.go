package logs

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// hole takes every byte and keeps none.
type hole struct{}

func (hole) Append(parts [][]byte) (n int, err error) {
	for _, p := range parts {
		n += len(p)
	}
	return n, nil
}
func (hole) Truncate(int64) error       { return nil }
func (hole) Stat() (int64, bool, error) { return 0, true, nil }
func (hole) Close() error               { return nil }

// chunks is output of 100-byte lines in reads of 64 KiB.
func chunks() []byte {
	line := []byte(strings.Repeat("x", 99) + "\n")
	return bytes.Repeat(line, 1<<20/100)
}

func benchmarkAppend(b *testing.B, size int, create func(string) (file, error)) {
	w, err := OpenWriter(b.TempDir(), Limits{SegmentBytes: 8 << 20, MaxBytes: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	if create != nil {
		w.create = create
		w.limits.SegmentBytes = 1 << 62
	}
	in, text, at := w.Input(1, Stdout), chunks(), time.Unix(0, 0)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		from := i * size % (len(text) - size)
		if err := in.Append(text[from:from+size], at); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppendPath is what locald adds to the write.
func BenchmarkAppendPath(b *testing.B) {
	nowhere := func(string) (file, error) { return hole{}, nil }
	b.Run("64KiB", func(b *testing.B) { benchmarkAppend(b, 64<<10, nowhere) })
	b.Run("line", func(b *testing.B) { benchmarkAppend(b, 100, nowhere) })
}

func BenchmarkAppend(b *testing.B) {
	b.Run("64KiB", func(b *testing.B) { benchmarkAppend(b, 64<<10, nil) })
	b.Run("line", func(b *testing.B) { benchmarkAppend(b, 100, nil) })
}

// filled is a store of total bytes written in reads of size.
func filled(b *testing.B, total, size int) string {
	b.Helper()
	dir := b.TempDir()
	w, err := OpenWriter(dir, Limits{})
	if err != nil {
		b.Fatal(err)
	}
	var text []byte
	for i := 0; len(text) < 1<<20; i++ {
		text = fmt.Appendf(text, "2026-01-01T00:00:%02d INFO request %d served in %d ms %s\n", i%60, i, i%977, strings.Repeat("abcdef ", i%12))
	}
	in := w.Input(1, Stdout)
	for n := 0; n < total; n += size {
		if err := in.Append(text[n%(len(text)-size):][:size], time.Now()); err != nil {
			b.Fatal(err)
		}
	}
	if err := in.Close(); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

func BenchmarkRead(b *testing.B) {
	const total = 64 << 20
	for _, size := range []int{64 << 10, 100} {
		dir := filled(b, total, size)
		for name, q := range map[string]Query{
			"all":          all,
			"tail":         {Tail: 1000},
			"grep/literal": {Tail: -1, Grep: regexp.MustCompile("request 424242 ")},
			"grep/many":    {Tail: -1, Grep: regexp.MustCompile("served in 7 ms")},
			"grep/pattern": {Tail: -1, Grep: regexp.MustCompile(`served in \d00 ms`)},
			"grep/none":    {Tail: -1, Grep: regexp.MustCompile(`[xyz]{3}\d`)},
		} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.SetBytes(total)
				b.ReportAllocs()
				for b.Loop() {
					if err := OpenReader(dir).Read(context.Background(), q, func(Line) error { return nil }); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkFollowLatency is the time from Append to emit.
func BenchmarkFollowLatency(b *testing.B) {
	dir := b.TempDir()
	w, err := OpenWriter(dir, Limits{})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	in := w.Input(1, Stdout)
	ctx, cancel := context.WithCancel(context.Background())
	seen, done := make(chan struct{}), make(chan error)
	go func() {
		done <- OpenReader(dir).Follow(ctx, all, func(lines []Line) error {
			for range lines {
				seen <- struct{}{}
			}
			return nil
		})
	}()
	for b.Loop() {
		if err := in.Append([]byte("one line\n"), time.Now()); err != nil {
			b.Fatal(err)
		}
		<-seen
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

func BenchmarkOpenWriter(b *testing.B) {
	for _, size := range []int{64 << 10, 100} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			dir := filled(b, 7<<20, size)
			for b.Loop() {
				w, err := OpenWriter(dir, Limits{})
				if err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
