package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/wire"
	"github.com/locald/locald/runtime"
)

// Peer is one end of the connection. It calls the other end and answers its
// calls.
type Peer struct {
	conn *wire.Conn
	life context.Context // of what the other end has asked for
	end  context.CancelFunc
	gone chan struct{}

	handlers map[string]handler // unchanged once it serves

	mu      sync.Mutex
	last    uint64
	calls   map[uint64]*call              // ours, unanswered
	serving map[uint64]context.CancelFunc // the other's
	lost    error                         // why there is no connection any more
}

// frame is one message. One with a Method or Cancel is from who calls, any other
// to him.
type frame struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method,omitempty"`
	Cancel bool            `json:"cancel,omitempty"`
	Value  json.RawMessage `json:"value,omitempty"`
	Report bool            `json:"report,omitempty"` // more is to come
	Error  *Failure        `json:"error,omitempty"`
	Files  int             `json:"files,omitempty"`
}

type handler func(ctx context.Context, args json.RawMessage, report func(any)) (result any, files []*os.File, err error)

// call is one that waits.
type call struct {
	mu    sync.Mutex
	come  []frame
	files []int
	ready chan struct{} // has room for one
}

// NewPeer is one end of a connection, which it takes over. Handle comes next,
// and then Serve.
func NewPeer(conn *net.UnixConn) *Peer {
	p := &Peer{
		conn: wire.New(conn), gone: make(chan struct{}), handlers: map[string]handler{},
		calls: map[uint64]*call{}, serving: map[uint64]context.CancelFunc{},
	}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

// Handle answers a method of the other end. Values travel as JSON.
func Handle[A, R any](p *Peer, method string, answer func(ctx context.Context, args A) (R, error)) {
	HandleReports(p, method, func(ctx context.Context, args A, _ func(any)) (R, error) { return answer(ctx, args) })
}

// HandleReports is Handle for a method that reports before it answers.
func HandleReports[A, R any](p *Peer, method string, answer func(ctx context.Context, args A, report func(any)) (R, error)) {
	p.handlers[method] = func(ctx context.Context, raw json.RawMessage, report func(any)) (any, []*os.File, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", method, err)
		}
		result, err := answer(ctx, args, report)
		return result, nil, err
	}
}

// HandleFiles answers a method with files, which are closed afterwards.
func HandleFiles[A any](p *Peer, method string, answer func(ctx context.Context, args A) ([]*os.File, error)) {
	p.handlers[method] = func(ctx context.Context, raw json.RawMessage, _ func(any)) (any, []*os.File, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", method, err)
		}
		files, err := answer(ctx, args)
		return nil, files, err
	}
}

// Call asks the other end for something, and waits for its answer.
func Call[R any](ctx context.Context, p *Peer, method string, args any) (R, error) {
	return CallReports[R, struct{}](ctx, p, method, args, nil)
}

// CallReports is Call for a method that reports before it answers. report is
// called here, one after the other.
func CallReports[R, E any](ctx context.Context, p *Peer, method string, args any, report func(E)) (R, error) {
	var result R
	last, _, err := p.call(ctx, method, args, func(raw json.RawMessage) {
		var e E
		if json.Unmarshal(raw, &e) == nil && report != nil {
			report(e)
		}
	})
	if err != nil {
		return result, err
	}
	if len(last) > 0 {
		err = json.Unmarshal(last, &result)
	}
	return result, err
}

// CallFiles is Call for a method that answers with files.
func CallFiles(ctx context.Context, p *Peer, method string, args any) ([]*os.File, error) {
	_, fds, err := p.call(ctx, method, args, nil)
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), method)
	}
	return files, err
}

func (p *Peer) call(ctx context.Context, method string, args any, report func(json.RawMessage)) (json.RawMessage, []int, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return nil, nil, err
	}
	c := &call{ready: make(chan struct{}, 1)}
	p.mu.Lock()
	if p.lost != nil {
		defer p.mu.Unlock()
		return nil, nil, p.lost
	}
	p.last++
	id := p.last
	p.calls[id] = c
	p.mu.Unlock()
	defer p.forget(id)
	if err := p.conn.Send(frame{ID: id, Method: method, Value: raw}); err != nil {
		p.lose(err)
	}
	canceled := ctx.Done()
	for {
		select {
		case <-c.ready:
		case <-canceled:
			canceled = nil // said once; the answer tells what came of it
			if err := p.conn.Send(frame{ID: id, Cancel: true}); err != nil {
				p.lose(err)
			}
			continue
		case <-p.gone: // what came before counts
			if last, files, err, over := c.hear(report); over {
				return last, files, err
			}
			return nil, nil, p.why()
		}
		if last, files, err, over := c.hear(report); over {
			return last, files, err
		}
	}
}

// hear takes what has come, and is over with the answer.
func (c *call) hear(report func(json.RawMessage)) (last json.RawMessage, files []int, err error, over bool) {
	c.mu.Lock()
	come := c.come
	c.come, files = nil, c.files
	c.mu.Unlock()
	for _, f := range come {
		if !f.Report {
			return f.Value, files, f.Error.Unpack(), true
		}
		report(f.Value)
	}
	return nil, nil, nil, false
}

func (c *call) put(f frame, files []int) {
	c.mu.Lock()
	c.come = append(c.come, f)
	c.files = append(c.files, files...)
	c.mu.Unlock()
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

func (p *Peer) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.calls, id)
}

// Serve answers until the connection ends. What the other end had asked for is
// given up then.
func (p *Peer) Serve() {
	for {
		var f frame
		if err := p.conn.Receive(&f); err != nil {
			p.lose(err)
			return
		}
		files, err := p.conn.Take(f.Files)
		if err != nil {
			p.lose(err)
			return
		}
		switch {
		case f.Cancel:
			p.mu.Lock()
			if cancel := p.serving[f.ID]; cancel != nil {
				cancel()
			}
			p.mu.Unlock()
		case f.Method != "":
			ctx, cancel := context.WithCancel(p.life)
			p.mu.Lock()
			p.serving[f.ID] = cancel
			p.mu.Unlock()
			go p.answer(ctx, f)
		default:
			p.mu.Lock()
			c := p.calls[f.ID]
			p.mu.Unlock()
			if c == nil { // nobody waits any more
				for _, fd := range files {
					_ = unix.Close(fd)
				}
				continue
			}
			c.put(f, files)
		}
	}
}

func (p *Peer) answer(ctx context.Context, f frame) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.serving[f.ID]()
		delete(p.serving, f.ID)
	}()
	answer := frame{ID: f.ID}
	handle, known := p.handlers[f.Method]
	if !known {
		answer.Error = Pack(fmt.Errorf("%s: no such method", f.Method))
		p.send(answer)
		return
	}
	result, files, err := handle(ctx, f.Value, func(v any) {
		if raw, err := json.Marshal(v); err == nil {
			p.send(frame{ID: f.ID, Report: true, Value: raw})
		}
	})
	answer.Error, answer.Files = Pack(err), len(files)
	if err == nil && result != nil {
		if answer.Value, err = json.Marshal(result); err != nil {
			answer.Error = Pack(err)
		}
	}
	p.send(answer, files...)
	for _, file := range files {
		_ = file.Close()
	}
}

func (p *Peer) send(f frame, files ...*os.File) {
	if err := p.conn.Send(f, files...); err != nil {
		p.lose(err)
	}
}

// Gone is closed when the connection has ended.
func (p *Peer) Gone() <-chan struct{} { return p.gone }

// Close ends the connection.
func (p *Peer) Close() error {
	p.lose(net.ErrClosed)
	return nil
}

func (p *Peer) lose(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost != nil {
		return
	}
	p.lost = fmt.Errorf("%w: the process that has it has gone: %w", runtime.ErrUnavailable, err)
	p.end()
	_ = p.conn.Close()
	close(p.gone)
}

func (p *Peer) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}
