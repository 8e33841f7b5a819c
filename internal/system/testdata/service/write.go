package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// shape is what a writer writes, and how it ends.
type shape struct {
	every   time.Duration     // between two lines
	length  func(n int) int   // of a line's letters
	pieces  int               // a line is written in so many
	burst   int               // lines in one go
	life    func(run int) int // milliseconds, and then it fails; nil: it stays
	parting func(run int) int // milliseconds that it goes on after SIGTERM
	deaf    bool              // to SIGTERM
}

func always(n int) func(int) int { return func(int) int { return n } }

var shapes = map[string]shape{
	"plain": {every: 5 * time.Millisecond, length: always(20), parting: func(run int) int { return run * 37 % 150 }},
	"long": {
		every: 200 * time.Millisecond, parting: func(run int) int { return run * 53 % 100 },
		length: func(n int) int { return []int{10, 16 << 10, 40_000, 16<<10 - 30, 100, 70_000}[n%6] },
	},
	"pieces": {every: 12 * time.Millisecond, length: always(60), pieces: 4, parting: func(run int) int { return run * 29 % 80 }},
	"fast":   {every: 200 * time.Millisecond, length: always(80), burst: 200, parting: always(30)},
	"deaf":   {every: 10 * time.Millisecond, length: always(30), deaf: true},
	"brief": {
		every: 10 * time.Millisecond, length: always(20), parting: always(0),
		life: func(run int) int { return 100 + run*131%1100 },
	},
}

// write holds FILE alone, notes its run there, and writes numbered lines to both
// streams until it is told to end. How many bytes the system has taken of them is
// in FILE.bytes, two numbers a run, whatever becomes of this process.
func write(name, path string) error {
	form, known := shapes[name]
	if !known {
		return fmt.Errorf("%s: no such shape", name)
	}
	f, err := hold(path)
	if err != nil {
		return err
	}
	defer f.Close()
	run, err := strconv.Atoi(os.Getenv("LOCALD_RUN"))
	if err != nil {
		return err
	}
	taken, err := os.OpenFile(path+".bytes", os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	if form.deaf {
		ended = nil
	}
	if err := listen(); err != nil {
		return err
	}
	streams := []*writer{
		{out: os.Stdout, name: "out", taken: taken, at: int64(run * 16)},
		{out: os.Stderr, name: "err", taken: taken, at: int64(run*16 + 8)},
	}
	var over, failed <-chan time.Time
	if form.life != nil {
		failed = time.After(time.Duration(form.life(run)) * time.Millisecond)
	}
	tick := time.NewTicker(form.every)
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ended:
			over = time.After(time.Duration(form.parting(run)) * time.Millisecond)
		case <-over:
			return nil
		case <-failed:
			os.Exit(1)
		}
		for range max(form.burst, 1) {
			if err := streams[0].line(run, form); err != nil {
				return err
			}
		}
		if n%10 == 0 {
			if err := streams[1].line(run, form); err != nil {
				return err
			}
		}
	}
}

// writer is one stream of numbered lines.
type writer struct {
	out   *os.File
	name  string
	n     int
	total uint64
	taken *os.File
	at    int64
}

// line is "out 3 17 20 rrrr…": stream, run, number, and so many letters.
func (w *writer) line(run int, form shape) error {
	w.n++
	length := form.length(w.n)
	text := fmt.Appendf(nil, "%s %d %d %d ", w.name, run, w.n, length)
	text = append(text, bytes.Repeat([]byte{'a' + byte(w.n%26)}, length)...)
	text = append(text, '\n')
	for pieces := max(form.pieces, 1); pieces > 0; pieces-- {
		piece := text[:len(text)/pieces]
		if _, err := w.out.Write(piece); err != nil {
			return err
		}
		w.total += uint64(len(piece))
		if _, err := w.taken.WriteAt(binary.LittleEndian.AppendUint64(nil, w.total), w.at); err != nil {
			return err
		}
		text = text[len(piece):]
	}
	return nil
}
