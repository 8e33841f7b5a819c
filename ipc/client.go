package ipc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// What a client can meet besides an *Error of the daemon.
var (
	ErrNoDaemon = errors.New("no daemon listens")                     // there is no socket, or nobody behind it
	ErrCut      = errors.New("the daemon's answer was cut off")       // the connection ended before the last object
	errAnswer   = errors.New("the daemon's answer is not understood") // not JSON, or not what the call answers
)

// Client talks to the daemon that listens at a socket. Every call is a
// connection of its own. Methods may be called concurrently.
type Client struct {
	Socket string

	// Doubt, unless nil, is asked when nothing has come of an answer for a
	// second, since a daemon that hangs keeps its socket. Its error ends the
	// call; nil goes on to wait.
	Doubt func(ctx context.Context) error

	// Revive, unless nil, is asked for a client of another daemon when the one
	// that was called has ended without a word. The call is made there again,
	// once. A daemon that hangs up and lives on is not asked again.
	Revive func(ctx context.Context) (*Client, error)

	mu   sync.Mutex
	idle *link // for the next call
}

// doubtAfter is how long a daemon may be silent until Doubt is asked.
const doubtAfter = time.Second

// link is a connection to a daemon.
type link struct {
	conn *net.UnixConn
	pid  int // of the daemon
	made time.Time
}

// Open is a client of the daemon that listens at a socket, connected for its
// first call. The errors are those of Dial.
func Open(ctx context.Context, socket string) (*Client, error) {
	l, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	return &Client{Socket: socket, idle: l}, nil
}

// link is the connection that Open made, or a new one: a daemon does not wait
// for ever for a request.
func (c *Client) link(ctx context.Context) (*link, error) {
	c.mu.Lock()
	l := c.idle
	c.idle = nil
	c.mu.Unlock()
	if l != nil && time.Since(l.made) < RequestTimeout/2 {
		return l, nil
	}
	if l != nil {
		l.conn.Close()
	}
	return dial(ctx, c.Socket)
}

// Dial connects to the socket, after making sure that both the socket and
// whoever listens there belong to our own user: nothing is sent to anyone else.
// It returns ErrNoDaemon when nobody listens, and an *Error when the path is
// held by something or somebody else.
func Dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	l, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	return l.conn, nil
}

func dial(ctx context.Context, socket string) (*link, error) {
	if err := ownSocket(socket); err != nil {
		return nil, err
	}
	conn, err := connect(ctx, socket)
	if err != nil {
		return nil, err
	}
	uid, pid, err := peer(conn)
	if err == nil && uid != os.Getuid() {
		e := unavailable("%s is served by uid %d, not by you (uid %d)", socket, uid, os.Getuid())
		e.Hint = "rm " + socket
		err = e
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &link{conn: conn, pid: pid, made: time.Now()}, nil
}

// ownSocket checks what stands at the path without following links.
func ownSocket(path string) error {
	stat, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoDaemon
	}
	if err != nil {
		return unavailable("socket %s: %v", path, err)
	}
	if stat.Mode().Type() != fs.ModeSocket {
		e := unavailable("%s is %s, not a socket", path, kindOf(stat.Mode()))
		e.Hint = "mv " + path + " " + path + ".old"
		return e
	}
	if sys, ok := stat.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Getuid() {
		e := unavailable("socket %s belongs to another user", path)
		e.Hint = "sudo rm " + path
		return e
	}
	return nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	}
	return "a device"
}

// connect waits while the listener's queue is full: the kernel answers that
// with an error at once.
func connect(ctx context.Context, socket string) (*net.UnixConn, error) {
	limit := time.Now().Add(RequestTimeout)
	for wait := time.Millisecond; ; wait *= 2 {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"}) // it never waits
		switch {
		case err == nil:
			return conn, nil
		case ctx.Err() != nil:
			return nil, ctx.Err() // the caller's own end says nothing of the socket
		case errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT):
			return nil, ErrNoDaemon
		case !errors.Is(err, syscall.EAGAIN):
			return nil, unavailable("socket %s: %v", socket, err)
		case time.Now().Add(wait).After(limit):
			return nil, unavailable("the daemon at %s does not accept connections", socket)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func unavailable(format string, args ...any) *Error {
	return &Error{Code: CodeDaemonUnavailable, Message: fmt.Sprintf(format, args...)}
}

// PeerPID is the process that listens at the socket.
func (c *Client) PeerPID(ctx context.Context) (int, error) {
	l, err := dial(ctx, c.Socket)
	if err != nil {
		return 0, err
	}
	l.conn.Close()
	return l.pid, nil
}

// Call makes a call that answers one value and puts it into result, a pointer.
// The daemon's refusal is an *Error; ErrNoDaemon and ErrCut are what they say.
func (c *Client) Call(ctx context.Context, call string, args, result any) error {
	stream, err := c.Stream(ctx, call, args)
	if err != nil {
		return err
	}
	defer stream.Close()
	line, err := stream.line()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, result); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	return nil
}

// Stream makes a call that answers many values. The caller closes the Reader;
// cancelling ctx ends it too, and the daemon stops working on the call.
func (c *Client) Stream(ctx context.Context, call string, args any) (*Reader, error) {
	request, err := encode(Request{V: Protocol, Call: call, Args: args})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", call, err)
	}
	if len(request) > MaxRequest {
		return nil, invalid("%s: the request would be %d bytes, and at most %d are allowed", call, len(request), MaxRequest)
	}
	l, err := c.link(ctx)
	if err != nil {
		return nil, err
	}
	r := &Reader{ctx: ctx, client: c, request: request, in: bufio.NewReaderSize(nil, 64<<10)}
	if err := r.ask(l); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Reader reads the values of a stream, one after the other. It is for one
// goroutine.
type Reader struct {
	ctx     context.Context
	client  *Client
	request []byte
	link    *link
	stop    func() bool
	in      *bufio.Reader
	long    []byte
	raw     []byte
	heard   bool // something of the answer has come, or is known to be on its way
	revived bool
	ended   error // why the call cannot go on
	last    bool
}

// ask sends the request over a connection.
func (r *Reader) ask(l *link) error {
	r.link = l
	r.in.Reset(l.conn)
	r.stop = context.AfterFunc(r.ctx, func() { l.conn.Close() })
	if err := l.conn.SetWriteDeadline(time.Now().Add(RequestTimeout)); err != nil {
		return r.broken(err)
	}
	if r.client.Doubt != nil {
		if err := l.conn.SetReadDeadline(time.Now().Add(doubtAfter)); err != nil {
			return r.broken(err)
		}
	}
	// A daemon that refuses early has already answered when writing fails, so
	// the answer is read in any case.
	if _, err := l.conn.Write(r.request); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return unavailable("the daemon at %s does not read", r.client.Socket)
	}
	return nil
}

// Next puts the next value into v, a pointer. It returns io.EOF after the last
// object, an *Error when the daemon ends the stream with one, ErrCut when the
// stream ends without either, and the context's error when that ended. The
// last object of a stream of events is an event like the others.
func (r *Reader) Next(v any) error {
	if r.last {
		return io.EOF
	}
	line, err := r.line()
	if err != nil {
		return err
	}
	if l, ok := v.(*LogLine); ok && parseLogLine(line, l) {
		return nil
	}
	if e, ok := v.(*Event); ok {
		if err := json.Unmarshal(line, e); err != nil {
			return fmt.Errorf("%w: %w", errAnswer, err)
		}
		r.last = e.last()
		return nil
	}
	if bytes.Contains(line, []byte(`"event":`)) {
		var e Event
		if json.Unmarshal(line, &e) == nil && e.last() {
			r.last = true
			return io.EOF
		}
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	return nil
}

// Raw is the line that the last Next read, with its newline, as the daemon
// sent it. It is valid until the next call of Next.
func (r *Reader) Raw() []byte { return r.raw }

// Buffered reports whether a part of the next value is here already, so that
// output can be held back until there is nothing more to read.
func (r *Reader) Buffered() bool { return r.in.Buffered() > 0 }

// Close ends the conversation. Closing twice is closing once.
func (r *Reader) Close() error {
	r.stop()
	return r.link.conn.Close()
}

// line reads the next line; an error object is returned as an *Error.
func (r *Reader) line() ([]byte, error) {
	line, err := r.read()
	if err != nil {
		return nil, r.broken(err)
	}
	r.raw = line
	if !bytes.HasPrefix(line, []byte(`{"error":`)) {
		return line, nil
	}
	var f failure
	if err := json.Unmarshal(line, &f); err != nil || f.Error == nil {
		return line, nil
	}
	r.last = true
	return nil, f.Error
}

func (r *Reader) read() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	if err == nil {
		r.hear()
		return line, nil
	}
	r.long = append(r.long[:0], line...)
	for r.goesOn(err) {
		line, err = r.in.ReadSlice('\n')
		r.long = append(r.long, line...)
	}
	return r.long, err
}

// hear ends the doubts.
func (r *Reader) hear() {
	if !r.heard && r.client.Doubt != nil {
		_ = r.link.conn.SetReadDeadline(time.Time{}) // on a closed one the next read says so
	}
	r.heard = true
}

// goesOn reports whether to read on after an error.
func (r *Reader) goesOn(err error) bool {
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return true
	case r.heard || r.ctx.Err() != nil:
		return false
	case errors.Is(err, os.ErrDeadlineExceeded):
		r.hear()
		r.ended = r.client.Doubt(r.ctx)
		return r.ended == nil
	case len(r.long) == 0 && !r.revived && r.client.Revive != nil:
		r.revived = true
		return r.revive()
	}
	return false
}

// revive makes the call again where another daemon is.
func (r *Reader) revive() bool {
	other, err := r.client.Revive(r.ctx)
	if err != nil {
		r.ended = err
		return false
	}
	l, err := other.link(r.ctx)
	if err != nil {
		r.ended = err
		return false
	}
	if l.pid == r.link.pid {
		l.conn.Close()
		return false
	}
	r.Close()
	r.ended = r.ask(l)
	return r.ended == nil
}

// broken is what a failed read means to the caller.
func (r *Reader) broken(err error) error {
	if ctxErr := r.ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	if r.ended != nil {
		return r.ended
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return ErrCut
	}
	return fmt.Errorf("%w (%w)", ErrCut, err)
}
