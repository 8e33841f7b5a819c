package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// outputTime is how long the engine has, after a container's end, to hand over
// the rest of what it wrote.
const outputTime = 10 * time.Second

// sink is one of the two streams of a run. A store that takes no more must not
// hold up the container, so what it refuses is thrown away.
type sink struct {
	o    *output
	file *os.File // nil: nobody reads
	at   position
}

// position is how much of a stream has come. It counts lines, because an engine
// may write what is no UTF-8 into its copy in other bytes, but never the end of
// a line.
type position struct {
	lines int
	rest  []byte // the line that has not ended, or its end where it is too long
	long  int    // how much of that line came before rest
	size  int64  // of all of it in the engine's copy, at most
}

// What a line and a byte of it may take in the engine's copy: the JSON around
// it, and an escape.
const (
	lineSize = 128
	byteSize = 6
)

// maxRest is how much of a line that does not end is held.
const maxRest = 16 << 10

func (p *position) add(b []byte) {
	ends := bytes.Count(b, []byte{'\n'})
	if ends > 0 {
		p.lines, p.rest, p.long = p.lines+ends, p.rest[:0], 0
	}
	p.rest = append(p.rest, b[bytes.LastIndexByte(b, '\n')+1:]...)
	if more := len(p.rest) - maxRest; more > 0 {
		p.rest, p.long = append(p.rest[:0], p.rest[more:]...), p.long+more
	}
	p.size += int64(ends+1) * lineSize
	for _, c := range b {
		switch {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			p.size += byteSize
		default:
			p.size++
		}
	}
}

// behind passes on what comes behind a position of the stream.
type behind struct {
	sink  *sink
	lines int    // still to come
	rest  []byte // of the line after them
	known int    // bytes of that line that need not be looked at
}

func (s *sink) onwards() *behind {
	return &behind{sink: s, lines: s.at.lines, rest: bytes.Clone(s.at.rest), known: s.at.long}
}

// Write implements io.Writer.
func (s *behind) Write(b []byte) (int, error) {
	all := len(b)
	for s.lines > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			return all, nil
		}
		s.lines--
		b = b[end+1:]
	}
	if len(s.rest) > 0 && len(b) > s.known {
		if !bytes.HasPrefix(b[s.known:], s.rest) {
			s.rest = []byte(string([]rune(string(s.rest)))) // as engines write it that keep JSON
		}
		s.known += len(s.rest)
		s.rest = nil
	}
	known := min(s.known, len(b))
	s.known -= known
	if b = b[known:]; len(b) > 0 {
		_, _ = s.sink.Write(b) // it never fails
	}
	return all, nil
}

// Write implements io.Writer, and never fails. When whoever reads the stream is
// gone, another is asked for: a keeper that was killed has a successor.
func (s *sink) Write(b []byte) (int, error) {
	s.o.last.Store(time.Now().UnixNano())
	s.at.add(b)
	if f := s.o.current(s); f == nil {
		return len(b), nil
	} else if n, err := f.Write(b); err != nil && s.o.reopen() {
		s.o.note("whoever stored the output was killed: what was written at that time may be missing")
		_, _ = s.o.current(s).Write(b[n:])
	}
	return len(b), nil
}

// note says something in the run's log.
func (o *output) note(text string) {
	if o.i.r.options.Note == nil || o.log == "" {
		return
	}
	_, _, run, _ := o.i.Ref().Run.Split()
	o.i.r.options.Note(o.log, run, text)
}

// output is what a container writes, on its way to the log store.
type output struct {
	i    *instance
	open func() (stdout, stderr *os.File, err error) // nil: nobody reads
	log  string
	last atomic.Int64 // when something last came, in nanoseconds

	stdout, stderr sink

	mu     sync.Mutex // guards the files of the sinks, and what follows
	tried  time.Time  // when the streams were last opened
	closed bool
}

// openOutput opens the run's log streams.
func (r *Runtime) openOutput(spec runtime.Spec) (*output, error) {
	o := &output{log: spec.Log, tried: time.Now()}
	o.stdout.o, o.stderr.o = o, o
	if r.options.Streams == nil || spec.Log == "" {
		return o, nil
	}
	o.open = func() (stdout, stderr *os.File, err error) { return r.options.Streams(spec.Log, spec.Run) }
	var err error
	o.stdout.file, o.stderr.file, err = o.open()
	return o, err
}

func (o *output) current(s *sink) *os.File {
	o.mu.Lock()
	defer o.mu.Unlock()
	return s.file
}

// reopen asks for new streams, once a second at most, and reports whether
// there are.
func (o *output) reopen() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.open == nil || time.Since(o.tried) < time.Second {
		return false
	}
	o.tried = time.Now()
	stdout, stderr, err := o.open()
	if err != nil {
		return false
	}
	_, _ = o.stdout.file.Close(), o.stderr.file.Close()
	o.stdout.file, o.stderr.file = stdout, stderr
	return true
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, s := range []*sink{&o.stdout, &o.stderr} {
		if s.file != nil {
			_ = s.file.Close()
		}
	}
}

// flush waits until everything is in the log store.
func (o *output) flush() {
	if o.i.r.options.Flush == nil || o.open == nil {
		return
	}
	ctx, cancel := context.WithTimeout(o.i.r.life, outputTime)
	defer cancel()
	_, _, run, _ := o.i.Ref().Run.Split()
	_ = o.i.r.options.Flush(ctx, o.log, run) // a store that is gone holds nothing up
}

// attach connects to the output of a container that has not started, so that
// nothing can be missed.
func (e *engine) attach(ctx context.Context, id string) (client.HijackedResponse, error) {
	ctx, done := e.watched(ctx)
	defer done()
	stream, err := e.cli.ContainerAttach(ctx, id, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
	return stream.HijackedResponse, e.fault(ctx, "attach to "+short(id), err)
}

// pump hands the output over until it ends. A stream that breaks while the
// container lives is resumed from the engine's own copy, behind what has come.
func (o *output) pump(stream io.ReadCloser, source io.Reader) {
	defer close(o.i.output)
	defer o.flush()
	defer o.close()
	o.last.Store(time.Now().UnixNano())
	var stdout, stderr io.Writer = &o.stdout, &o.stderr
	for resumed := false; ; resumed = true {
		o.copy(stream, source, stdout, stderr)
		exact := o.stdout.at.size+o.stderr.at.size <= kept
		// Who follows the engine's copy may miss a last line that has no end.
		if o.whole() && (!resumed || !exact) {
			return
		}
		over := o.i.hasEnded() // then this is all there is
		since := ""
		stdout, stderr = o.stdout.onwards(), o.stderr.onwards()
		if !exact {
			since = unixNano(time.Unix(0, o.last.Load()+1))
			stdout, stderr = &o.stdout, &o.stderr
		}
		logs, err := o.resume(since)
		if err != nil {
			return
		}
		if !exact {
			o.note("the engine broke the output off: what was written at that time may be missing")
		}
		stream, source = logs, logs
		if over {
			o.copy(stream, source, stdout, stderr)
			return
		}
	}
}

// kept is how much an engine's own copy of the output has from the beginning
// on. Behind that it may have begun anew, and only the time tells where to
// resume.
const kept = 10 << 20

// copy reads one stream to its end, which it brings about itself when the
// runtime is closed or the container's end was long ago.
func (o *output) copy(stream io.ReadCloser, source io.Reader, stdout, stderr io.Writer) {
	closing := context.AfterFunc(o.i.r.life, func() {
		_ = stream.Close()
		o.close() // a write to a store that does not read ends too
	})
	defer closing()
	copied := make(chan struct{})
	o.i.r.running.Go(func() {
		select {
		case <-copied:
			return
		case <-o.i.ended:
		}
		late := time.NewTimer(outputTime)
		defer late.Stop()
		select {
		case <-copied:
		case <-late.C:
			_ = stream.Close()
		}
	})
	_, _ = stdcopy.StdCopy(stdout, stderr, source)
	close(copied)
	_ = stream.Close()
}

// whole reports whether the stream stopped because the container did. The end
// of the stream and the event of the end come in any order. An end of which
// there was no event came while the engine was away, and the stream broke off
// before it.
func (o *output) whole() bool {
	const apart = time.Second
	timer := time.NewTimer(apart)
	defer timer.Stop()
	select {
	case <-o.i.ended:
		return o.i.wasSeen()
	case <-o.i.r.life.Done():
		return true
	case <-timer.C:
		return false
	}
}

// resume opens the engine's copy of the output, whole or since a time. It tries
// until the engine is back.
func (o *output) resume(since string) (io.ReadCloser, error) {
	const shortest, longest = 100 * time.Millisecond, 2 * time.Second
	for pause := shortest; ; pause = min(pause*2, longest) {
		logs, err := o.i.e.cli.ContainerLogs(o.i.r.life, o.i.id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true, Since: since})
		if err == nil {
			return logs, nil
		}
		if !lost(err) {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-o.i.r.life.Done():
			return nil, errors.New("closed")
		}
	}
}
