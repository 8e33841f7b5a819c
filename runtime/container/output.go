package container

import (
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
}

// Write implements io.Writer, and never fails. When whoever reads the stream is
// gone, another is asked for: a keeper that was killed has a successor.
func (s *sink) Write(b []byte) (int, error) {
	s.o.last.Store(time.Now().UnixNano())
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
// container lives is resumed from the engine's own copy, at the time of the
// last bytes that came.
func (o *output) pump(stream io.ReadCloser, source io.Reader) {
	defer close(o.i.output)
	defer o.flush()
	defer o.close()
	o.last.Store(time.Now().UnixNano())
	for {
		o.copy(stream, source)
		if o.whole() {
			return
		}
		over := o.i.hasEnded() // then this is all there is
		logs, err := o.resume()
		if err != nil {
			return
		}
		o.note("the engine broke the output off: what was written at that time may be missing")
		stream, source = logs, logs
		if over {
			o.copy(stream, source)
			return
		}
	}
}

// copy reads one stream to its end, which it brings about itself when the
// runtime is closed or the container's end was long ago.
func (o *output) copy(stream io.ReadCloser, source io.Reader) {
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
	_, _ = stdcopy.StdCopy(&o.stdout, &o.stderr, source)
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

// resume opens the engine's copy of the output where the stream broke off. It
// tries until the engine is back.
func (o *output) resume() (io.ReadCloser, error) {
	const shortest, longest = 100 * time.Millisecond, 2 * time.Second
	since := unixNano(time.Unix(0, o.last.Load()+1))
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
