package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SegmentBytes is the size of a segment unless Limits says otherwise.
const SegmentBytes = 8 << 20

// Limits say how much a store keeps. The zero value keeps everything, in
// segments of SegmentBytes.
type Limits struct {
	SegmentBytes int64         // a new segment begins once this much is in one
	MaxBytes     int64         // of this store, enforced when a segment begins; 0 is no limit
	MaxAge       time.Duration // the same for age

	// Rotated, if not nil, is called in a goroutine of its own when a segment
	// was full and the next has begun: the moment to Prune the stores that
	// share a budget.
	Rotated func()

	// Trouble, if not nil, is told the cause when output cannot be stored, once,
	// and nil when it can again, with how many bytes are missing. It must not
	// call the Writer.
	Trouble func(cause error, missing int64)
}

// Writer writes one store. Methods may be called concurrently, also those of
// its Inputs. A store must have one Writer at a time.
type Writer struct {
	dir    string
	limits Limits
	create func(path string) (file, error) // opens a segment for appending
	resume func(path string) (file, error)

	mu      sync.Mutex
	closed  bool
	seg     segment // the newest; zero when there is none
	out     file    // of seg; nil until something is stored
	size    int64   // of seg
	next    uint64  // number of the next line
	before  uint64  // payload bytes stored so far
	began   uint64  // the same when seg began
	taken   taking  // what somebody took out of the store, until a gap says so
	checked int64   // when seg was last seen in place, ns
	held    *backlog
	head    [headerSize]byte
	parts   [3][]byte
}

// file is what a Writer needs of a segment.
type file interface {
	// Append writes all of parts at the end, in one system call if the system
	// takes it whole, and says how much it has written.
	Append(parts [][]byte) (int, error)
	Truncate(size int64) error
	// Stat returns the size, and whether the file is still the one that its
	// path names.
	Stat() (size int64, there bool, err error)
	Close() error
}

// ErrClosed is returned by a Writer or Input after Close.
var ErrClosed = errors.New("log store is closed")

// OpenWriter opens the store in dir for writing, and creates dir (0700) when it
// is not there. Numbers go on where they ended. What a killed writer left half
// written is repaired: the lines that are there stay, and a gap says how many
// bytes are missing.
func OpenWriter(dir string, limits Limits) (*Writer, error) {
	if limits.SegmentBytes <= 0 {
		limits.SegmentBytes = SegmentBytes
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("log store: %w", err)
	}
	w := &Writer{dir: dir, limits: limits, create: createSegment, resume: resumeSegment, next: 1}
	list, err := segments(dir)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return w, nil
	}
	torn, err := w.locate(list)
	if err != nil {
		return nil, err
	}
	if torn != nil {
		w.put(header{stream: Gap, run: torn.run, lines: 1, time: torn.time}, gapText(torn.missing, "the writer was killed"))
		if w.held != nil {
			w.held.lost, w.held.run, w.held.at = torn.missing, torn.run, time.Unix(0, torn.time)
		}
	}
	return w, nil
}

// Close closes the store. Inputs that end with a line that is not finished are
// closed first, or lose it. Close returns the error that keeps something from
// being stored, if there is one.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	var err error
	if w.held != nil && !w.recover() {
		err = w.held.cause
	}
	w.closed = true
	if w.held != nil {
		w.held.timer.Stop()
		w.held = nil
	}
	if w.out != nil {
		err = errors.Join(err, w.out.Close())
		w.out = nil
	}
	return err
}

// Err is the error that keeps output from being stored at the moment, or nil.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		return nil
	}
	return w.held.cause
}

// Event stores one line of the event stream. Its error is Append's.
func (w *Writer) Event(run int, text string, at time.Time) error {
	text = strings.ReplaceAll(text, "\n", " ")
	if len(text) > maxLine {
		text = text[:maxLine]
	}
	in := w.Input(run, Event)
	return in.Append([]byte(text+"\n"), at)
}

// put stores one block whose payload is parts, and reports whether it did. On
// failure the store is as it was, and w.held is set.
func (w *Writer) put(h header, parts ...[]byte) bool {
	if err := w.write(h, parts); err != nil {
		w.hold(err)
		return false
	}
	return true
}

func (w *Writer) write(h header, parts [][]byte) error {
	if err := w.ready(h); err != nil {
		return err
	}
	if taken := w.taken; taken.missing > 0 {
		gap := header{stream: Gap, run: h.run, lines: 1, time: h.time}
		if err := w.append(gap, [][]byte{gapText(taken.missing, taken.reason)}); err != nil {
			return err
		}
		w.taken = taking{}
	}
	return w.append(h, parts)
}

// append writes a block behind what is there.
func (w *Writer) append(h header, parts [][]byte) error {
	h.first, h.before = w.next, w.before
	all := append(w.parts[:0], w.head[:])
	for _, part := range parts {
		if len(part) > 0 {
			h.length += len(part)
			all = append(all, part)
		}
	}
	h.encode(&w.head)
	_, err := w.out.Append(all)
	clear(w.parts[1:])
	if err != nil {
		w.undo()
		return fmt.Errorf("log store %s: %w", w.dir, err)
	}
	w.size += int64(headerSize + h.length)
	w.next += uint64(h.lines)
	w.before += uint64(h.length)
	return nil
}

// undo takes back a block of which only a part was written.
func (w *Writer) undo() {
	if w.out.Truncate(w.size) != nil {
		w.leave()
	}
}

// leave gives the newest segment up; the next block begins another.
func (w *Writer) leave() {
	if w.out != nil {
		w.out.Close()
	}
	w.out, w.seg, w.size = nil, segment{}, 0
}

// ready makes sure that there is a segment to append to.
func (w *Writer) ready(h header) error {
	if since := h.time - w.checked; w.out != nil && (since < 0 || since >= int64(time.Second)) {
		w.checked = h.time
		w.inspect()
	}
	full := w.size >= w.limits.SegmentBytes
	if full {
		w.leave()
	}
	if w.out != nil {
		return nil
	}
	w.checked = h.time
	if w.seg.first > 0 && w.reopen() {
		return nil
	}
	if err := w.begin(h.run); err != nil {
		return err
	}
	if full && w.limits.Rotated != nil {
		go w.limits.Rotated()
	}
	return nil
}

// taking is what somebody did to a store.
type taking struct {
	missing int64
	reason  string
}

// inspect leaves a segment that somebody has deleted, moved, replaced, cut or
// written to: it is no place to write to.
func (w *Writer) inspect() {
	size, there, err := w.out.Stat()
	if err == nil && there && size == w.size {
		return
	}
	reason := "the log file was cut"
	if !there {
		reason = "the log file was taken away"
	}
	// What stands under the name may be a copy of all.
	left, _, lost := survey(w.dir, w.seg, false)
	missing := int64(w.before-w.began) - left.held
	if err == nil && lost == nil && missing > 0 {
		w.taken.missing, w.taken.reason = w.taken.missing+missing, reason
	}
	w.leave()
}

// reopen goes on with the segment of an earlier writer.
func (w *Writer) reopen() bool {
	out, err := w.resume(filepath.Join(w.dir, w.seg.name()))
	if err != nil {
		w.leave()
		return false
	}
	w.out = out
	if size, there, err := out.Stat(); err != nil || !there || size != w.size {
		w.leave()
		return false
	}
	return true
}

// begin opens a new segment.
func (w *Writer) begin(run int) error {
	seg := segment{first: w.next, run: run}
	path := filepath.Join(w.dir, seg.name())
	out, err := w.create(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // somebody deleted the directory
		if err = os.MkdirAll(w.dir, 0o700); err == nil {
			out, err = w.create(path)
		}
	case errors.Is(err, fs.ErrExist):
		// A link, or left empty when a block could not be written.
		if info, e := os.Lstat(path); e == nil && (info.Size() == 0 || !info.Mode().IsRegular()) && os.Remove(path) == nil {
			out, err = w.create(path)
		}
	}
	if err != nil {
		return fmt.Errorf("log store: %w", err)
	}
	w.out, w.seg, w.size, w.began = out, seg, 0, w.before
	if w.limits.MaxBytes > 0 || w.limits.MaxAge > 0 {
		// What cannot be deleted stays until the next segment.
		_ = Prune([]string{w.dir}, w.limits.MaxBytes, w.limits.MaxAge, time.Now())
	}
	return nil
}

// keptPending is what an Input may hold on to while nothing is pending.
const keptPending = 1 << 10

// Input is one stream of one run. Nothing is allocated for it but the
// beginning of a line that has no end yet.
type Input struct {
	w       *Writer
	run     int
	stream  Stream
	pending []byte // at most maxLine
	closed  bool
}

// Input opens a stream of a run.
func (w *Writer) Input(run int, s Stream) *Input {
	return &Input{w: w, run: run, stream: s}
}

// Append stores what was read: whole lines at once, the beginning of another
// when its end comes or the Input is closed. p is not kept. It never waits for
// a reader.
//
// When the store cannot be written, Append keeps the newest 64 KiB of the store
// in memory and counts what that drops; the error says why. The caller goes on
// as if nothing had happened: once writing works again the store gets a gap,
// which says how many bytes are missing, and what was kept.
func (in *Input) Append(p []byte, at time.Time) error {
	w := in.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if in.closed || w.closed {
		return ErrClosed
	}
	if w.held != nil && !w.due() {
		return w.held.push(in, p, at, false)
	}
	for len(p) > 0 {
		n := min(len(p), maxChunk)
		if !in.store(p[:n], at) {
			return w.held.push(in, p, at, false)
		}
		p = p[n:]
	}
	return nil
}

// Close stores an unfinished line. The error is Append's.
func (in *Input) Close() error {
	w := in.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if in.closed || w.closed {
		return nil
	}
	in.closed = true
	at := time.Now()
	if w.held != nil && !w.due() || !in.flush(at) {
		return w.held.push(in, nil, at, true)
	}
	return nil
}

// store takes in at most maxChunk bytes. When it reports false nothing of them
// was stored.
func (in *Input) store(p []byte, at time.Time) bool {
	end, lines := whole(p, len(in.pending))
	if lines > 0 {
		last := in.pending
		if end > 0 {
			last = p[:end]
		}
		h := header{
			stream: in.stream, run: in.run, lines: lines, time: at.UnixNano(),
			open: last[len(last)-1] != '\n',
		}
		if !in.w.put(h, in.pending, p[:end]) {
			return false
		}
		in.pending = in.pending[:0]
	}
	in.pending = append(in.pending, p[end:]...)
	if len(in.pending) == 0 && cap(in.pending) > keptPending {
		in.pending = nil
	}
	return true
}

// flush stores the pending line as it is.
func (in *Input) flush(at time.Time) bool {
	if len(in.pending) == 0 {
		return true
	}
	h := header{stream: in.stream, run: in.run, lines: 1, open: true, time: at.UnixNano()}
	if !in.w.put(h, in.pending) {
		return false
	}
	in.pending = nil
	return true
}

func gapText(missing int64, reason string) []byte {
	return []byte(strconv.FormatInt(missing, 10) + " " + strings.ReplaceAll(reason, "\n", " ") + "\n")
}

// descriptor is a segment opened for appending.
type descriptor struct {
	fd   int
	path string
}

func createSegment(path string) (file, error) {
	return openDescriptor(path, unix.O_CREAT|unix.O_EXCL)
}

func resumeSegment(path string) (file, error) {
	return openDescriptor(path, unix.O_NONBLOCK)
}

func openDescriptor(path string, flags int) (file, error) {
	fd, err := unix.Open(path, flags|unix.O_WRONLY|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return descriptor{fd, path}, nil
}

func (d descriptor) Append(parts [][]byte) (written int, err error) {
	for len(parts) > 0 {
		n, err := unix.Writev(d.fd, parts)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return written, err
		}
		written += n
		// A disk that fills up takes a part; asking again says why.
		for len(parts) > 0 && n >= len(parts[0]) {
			n -= len(parts[0])
			parts = parts[1:]
		}
		if n > 0 {
			parts[0] = parts[0][n:]
		}
	}
	return written, nil
}

func (d descriptor) Truncate(size int64) error { return unix.Ftruncate(d.fd, size) }

func (d descriptor) Stat() (size int64, there bool, err error) {
	var open, named unix.Stat_t
	if err := unix.Fstat(d.fd, &open); err != nil {
		return 0, false, err
	}
	if err := unix.Lstat(d.path, &named); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return 0, false, err
	}
	return open.Size, open.Dev == named.Dev && open.Ino == named.Ino && named.Mode&unix.S_IFMT == unix.S_IFREG, nil
}

func (d descriptor) Close() error { return unix.Close(d.fd) }
