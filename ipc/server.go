package ipc

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxSilent is how many connections may be open that have not sent their
// request yet. The oldest goes when one more comes.
const maxSilent = 256

// Table says which calls a server answers.
type Table map[string]Method

// Method is how one call is answered. Answer and Stream make them.
type Method struct {
	prepare func(raw json.RawMessage) (func(context.Context, *writer) error, *Error)
	patient bool
}

// Answer is a method that answers one value. A handler's error goes to the
// client as it is when it wraps an *Error, and with the code "internal"
// otherwise. The context ends when the client has gone.
func Answer[A, R any](handle func(context.Context, A) (R, error)) Method {
	return Method{prepare: func(raw json.RawMessage) (func(context.Context, *writer) error, *Error) {
		var args A
		if fault := decodeArgs(raw, &args); fault != nil {
			return nil, fault
		}
		return func(ctx context.Context, w *writer) error {
			result, err := handle(ctx, args)
			if err != nil {
				return err
			}
			return w.send(result)
		}, nil
	}}
}

// Stream is a method that answers any number of values. send may block while
// the client is slow, and returns an error once it has gone or was cut off;
// the handler then returns. It may be called from several goroutines, but not
// after the handler has returned.
//
// A handler that sends events sends the last one itself: without a service,
// "done" or "failed", with Exit set. For other values the server adds the last
// object.
func Stream[A, V any](handle func(ctx context.Context, args A, send func(V) error) error) Method {
	return Method{prepare: func(raw json.RawMessage) (func(context.Context, *writer) error, *Error) {
		var args A
		if fault := decodeArgs(raw, &args); fault != nil {
			return nil, fault
		}
		return func(ctx context.Context, w *writer) error {
			var ended sync.Once
			last := false
			err := handle(ctx, args, func(v V) error {
				if e, ok := any(v).(Event); ok && e.last() {
					ended.Do(func() { last = true })
				}
				return w.send(v)
			})
			var zero V
			_, events := any(zero).(Event)
			switch {
			case err != nil:
				return err
			case !events:
				return w.send(done{Event: EventDone})
			case !last && ctx.Err() == nil:
				return errors.New("the stream ended without its last event")
			}
			return nil
		}, nil
	}}
}

// last reports whether the event is the last of its stream.
func (e *Event) last() bool {
	return e.Service == "" && (e.Event == EventDone || e.Event == EventFailed)
}

// Patient is the method for clients that may stop reading for as long as they
// like, as somebody who follows a log does. What waits for them stays within
// a bound: send blocks.
func (m Method) Patient() Method {
	m.patient = true
	return m
}

// Server answers the calls of a table.
type Server struct {
	Methods Table

	// Report is told what no client hears of: a handler that panicked, with
	// its stack, and peers that were refused. It may be nil, and is called
	// from several goroutines.
	Report func(error)

	// SlowReader is how long a client may take nothing of what waits for it
	// before it is cut off; 0 is 10 s.
	SlowReader time.Duration

	silent silence
}

// Serve answers on l with the methods of t until ctx ends; see Server.Serve.
func Serve(ctx context.Context, l net.Listener, t Table) error {
	return (&Server{Methods: t}).Serve(ctx, l)
}

// Serve accepts connections on l, which must be a Unix socket, until ctx ends.
// It then closes l, cancels the handlers, waits for them and returns nil. An
// error means that l broke.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		l.Close()
		s.silent.closeAll()
	})()
	defer l.Close()

	spare := newSpare()
	defer spare.close()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			if unixConn, ok := conn.(*net.UnixConn); ok {
				s.silent.add(unixConn) // here, so that the oldest is the one that came first
			}
			open.Go(func() { s.converse(ctx, conn) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
			if !s.silent.closeOldest() {
				spare.refuse(ctx, l)
			}
		case errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR):
		default:
			return fmt.Errorf("accept: %w", err)
		}
	}
}

// converse has the one conversation of a connection.
func (s *Server) converse(ctx context.Context, c net.Conn) {
	defer c.Close()
	conn, ok := c.(*net.UnixConn)
	if !ok {
		s.report(fmt.Errorf("connection from %v is not a Unix socket", c.RemoteAddr()))
		return
	}
	w := newWriter(conn, s.slowReader())
	defer w.close()
	run, patient, err := s.listen(ctx, conn)
	if errors.Is(err, io.EOF) {
		return
	}
	if err != nil {
		w.fail(err)
		return
	}
	if patient {
		w.patience = 0
	}
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, w.hurry)()
	var watch sync.WaitGroup
	watch.Go(func() {
		awaitHangup(conn)
		cancel()
	})
	if err := s.protect(func() error { return run(ctx, w) }); err != nil {
		w.fail(err)
	}
	w.close()
	conn.Close()
	watch.Wait()
}

// listen reads the request and finds what answers it. Its error is io.EOF when
// there is nobody to tell.
func (s *Server) listen(ctx context.Context, conn *net.UnixConn) (run func(context.Context, *writer) error, patient bool, err error) {
	if err := s.admit(conn); err != nil {
		s.silent.remove(conn)
		s.report(err)
		return nil, false, err
	}
	if ctx.Err() != nil {
		s.silent.remove(conn)
		return nil, false, io.EOF
	}
	if err := conn.SetReadDeadline(time.Now().Add(RequestTimeout)); err != nil {
		return nil, false, io.EOF
	}
	line, err := readRequest(conn)
	if !s.silent.remove(conn) {
		return nil, false, io.EOF
	}
	var fault *Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, false, invalid("no whole request within %v", RequestTimeout)
	case errors.As(err, &fault):
		return nil, false, fault
	case err != nil:
		return nil, false, io.EOF
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, false, io.EOF
	}
	return s.find(line)
}

// admit lets in our own user and root, before anything is read.
func (s *Server) admit(conn *net.UnixConn) error {
	uid, pid, err := peer(conn)
	if err != nil {
		return &Error{Code: CodePermissionDenied, Message: err.Error()}
	}
	if uid != os.Getuid() && uid != 0 {
		return &Error{
			Code:    CodePermissionDenied,
			Message: fmt.Sprintf("this daemon belongs to uid %d and does not talk to uid %d (process %d)", os.Getuid(), uid, pid),
		}
	}
	return nil
}

// find is the method that a request asks for, with the arguments it carries.
func (s *Server) find(line []byte) (run func(context.Context, *writer) error, patient bool, err error) {
	req, fault := parseRequest(line)
	if fault != nil {
		return nil, false, fault
	}
	method, ok := s.Methods[req.Call]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(s.Methods)), " ")
		fault := invalid("no call %q; there are: %s", req.Call, known)
		fault.Hint = "locald server restart"
		return nil, false, fault
	}
	run, fault = method.prepare(req.Args)
	if fault != nil {
		return nil, false, fault
	}
	return run, method.patient, nil
}

// protect runs a handler; a panic in it becomes an error of this one call.
func (s *Server) protect(run func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.report(fmt.Errorf("panic in a handler: %v\n%s", v, debug.Stack()))
			err = &Error{
				Code:    CodeInternal,
				Message: "the daemon hit a fault of its own in this call; everything else goes on",
				Hint:    "locald server logs",
			}
		}
	}()
	return run()
}

func (s *Server) report(err error) {
	if s.Report != nil {
		s.Report(err)
	}
}

func (s *Server) slowReader() time.Duration {
	if s.SlowReader > 0 {
		return s.SlowReader
	}
	return 10 * time.Second
}

// awaitHangup returns when the peer has closed the connection, or we have. A
// peer that has only finished sending still wants its answer.
func awaitHangup(conn *net.UnixConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 512)
	_ = raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Read(int(fd), buf)
			switch {
			case n > 0 || errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil:
				return true
			default:
				return closedBothWays(int(fd))
			}
		}
	})
}

// silence is the connections that have not sent their request yet.
type silence struct {
	mu    sync.Mutex
	order list.List // of *net.UnixConn, the oldest first
	at    map[*net.UnixConn]*list.Element
}

// add takes conn in, and closes the oldest when there are too many.
func (s *silence) add(conn *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = map[*net.UnixConn]*list.Element{}
	}
	s.at[conn] = s.order.PushBack(conn)
	if s.order.Len() > maxSilent {
		s.drop(s.order.Front())
	}
}

// remove forgets conn, and reports whether it had still been there.
func (s *silence) remove(conn *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.at[conn]
	if ok {
		s.order.Remove(e)
		delete(s.at, conn)
	}
	return ok
}

func (s *silence) closeOldest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order.Len() == 0 {
		return false
	}
	s.drop(s.order.Front())
	return true
}

func (s *silence) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.order.Len() > 0 {
		s.drop(s.order.Front())
	}
}

func (s *silence) drop(e *list.Element) {
	conn := s.order.Remove(e).(*net.UnixConn)
	delete(s.at, conn)
	conn.Close()
}

// spare is a file descriptor held back for the moment when there are no
// others, so that a client can be told instead of hanging.
type spare struct{ file *os.File }

func newSpare() *spare {
	file, _ := os.Open(os.DevNull)
	return &spare{file: file}
}

// refuse accepts one connection with the spare descriptor, says why nothing
// comes of it, and takes the descriptor back.
func (s *spare) refuse(ctx context.Context, l net.Listener) {
	s.close()
	if conn, err := l.Accept(); err == nil {
		line, _ := encode(failure{&Error{
			Code:    CodeInternal,
			Message: "the daemon has no file descriptors left",
			Hint:    "ulimit -n 4096 and locald server restart",
		}})
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write(line)
		conn.Close()
	}
	if *s = *newSpare(); s.file == nil {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *spare) close() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}
