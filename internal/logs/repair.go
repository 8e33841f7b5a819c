package logs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// torn says what a killed writer left half written.
type torn struct {
	run     int
	time    int64
	missing int64
}

// locate finds where numbers go on in a store that has segments, and repairs
// the end of the newest.
func (w *Writer) locate(list []segment) (*torn, error) {
	for i := len(list) - 1; i >= 0; i-- {
		last := i == len(list)-1
		end, left, err := survey(w.dir, list[i], last)
		if err != nil {
			return nil, err
		}
		w.next = max(w.next, list[i].first, end.next)
		w.before = max(w.before, end.before)
		switch {
		case last && end.sound:
			w.seg, w.size, w.began = list[i], end.size, end.began
		case end.blocks == 0:
			w.next = max(w.next, list[i].first+1) // the name is taken
		}
		if end.blocks > 0 {
			return left, nil
		}
	}
	return nil, nil
}

// ending is what a segment ends with.
type ending struct {
	blocks int
	next   uint64
	began  uint64 // header.before of the first block
	before uint64
	held   int64 // payload bytes in the segment
	size   int64
	sound  bool // a writer can go on here
}

// survey reads the headers of a segment and, when asked to, repairs its end.
func survey(dir string, s segment, repair bool) (end ending, left *torn, err error) {
	f, err := openSegment(dir, s, os.O_RDONLY)
	if err != nil {
		// Something else has the name: nothing to go on with, nothing to read.
		return ending{}, nil, nil //nolint:nilerror // a store must open whatever lies in it
	}
	defer f.Close()
	scan := newScanner(f)
	defer scan.release()
	if err := scan.refresh(); err != nil {
		return ending{}, nil, fmt.Errorf("log segment %s: %w", f.Name(), err)
	}
	for {
		h, err := scan.header()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			break
		}
		if err != nil {
			return ending{}, nil, fmt.Errorf("log segment %s: %w", f.Name(), err)
		}
		scan.skip()
		if end.blocks == 0 {
			end.began = h.before
		}
		end.blocks++
		end.held += int64(h.length)
		end.next, end.before = max(end.next, h.end()), max(end.before, h.before+uint64(h.length))
	}
	end.size, end.sound = scan.off, scan.skipped == 0
	if !repair || !end.sound || end.size == scan.end {
		return end, nil, nil
	}
	left, err = mend(filepath.Join(dir, s.name()), f, &end, scan.end)
	return end, left, err
}

// mend makes a valid end of a half written block at end.size. It first writes a
// header that fits what is there and then cuts the rest off, so that being
// killed in between does no harm.
func mend(path string, f *os.File, end *ending, size int64) (*torn, error) {
	var left *torn
	b := make([]byte, size-end.size)
	if _, err := f.ReadAt(b, end.size); err != nil {
		return nil, fmt.Errorf("log segment %s: %w", path, err)
	}
	out, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("log segment: %w", err)
	}
	defer out.Close()
	if len(b) >= headerSize {
		h, _ := decode(b)
		have := b[headerSize:]
		left = &torn{run: h.run, time: h.time, missing: int64(h.length - len(have))}
		if len(have) > 0 && h.stream != Gap { // half a gap says nothing
			h.length = len(have)
			h.lines, h.open = count(have)
			h.encode((*[headerSize]byte)(b))
			if _, err := out.WriteAt(b[:headerSize], end.size); err != nil {
				return nil, fmt.Errorf("log segment: %w", err)
			}
			end.blocks++
			end.next, end.before = max(end.next, h.end()), max(end.before, h.before+uint64(h.length))
			end.size = size
		}
	}
	if err := out.Truncate(end.size); err != nil {
		return nil, fmt.Errorf("log segment: %w", err)
	}
	return left, nil
}
