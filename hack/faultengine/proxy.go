package faultengine

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Proxy is an engine's socket of its own, behind which is the real engine.
type Proxy struct {
	path    string
	forward *httputil.ReverseProxy
	server  *http.Server
	served  sync.WaitGroup

	mu          sync.Mutex
	connections map[net.Conn]bool
	faults      []*Fault
	mended      chan struct{} // closed and replaced by Mend
}

// Act answers a request in the place of the engine, to which forward leads.
type Act func(w http.ResponseWriter, r *http.Request, forward http.Handler)

// Fault is what happens to requests of one kind.
type Fault struct {
	Hit chan struct{} // closed when the first of them comes

	method, part string
	times        int
	act          Act
}

// Start listens in a directory of its own, with a name short enough for the
// system. The engine behind is that of DOCKER_HOST, or Docker's usual one.
func Start() (*Proxy, error) {
	dir, err := os.MkdirTemp("", "proxy")
	if err != nil {
		return nil, err
	}
	engine, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://")
	if !ok {
		engine = "/var/run/docker.sock"
	}
	p := &Proxy{path: filepath.Join(dir, "docker.sock"), connections: map[net.Conn]bool{}, mended: make(chan struct{})}
	p.forward = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	p.forward.FlushInterval = -1
	p.forward.ErrorLog = log.New(io.Discard, "", 0)
	p.forward.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", engine)
	}}
	return p, p.Appear()
}

// Close ends the proxy and removes what it made.
func (p *Proxy) Close() {
	p.Vanish()
	_ = os.RemoveAll(filepath.Dir(p.path))
}

// Host is the address for DOCKER_HOST.
func (p *Proxy) Host() string { return "unix://" + p.path }

// Env is an environment in which the proxy is the engine.
func (p *Proxy) Env(name string) string {
	return map[string]string{"DOCKER_HOST": p.Host(), "HOME": filepath.Dir(p.path)}[name]
}

// Appear listens again after Vanish.
func (p *Proxy) Appear() error {
	_ = os.Remove(p.path)
	listener, err := net.Listen("unix", p.path)
	if err != nil {
		return err
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) // as a killed engine leaves it
	p.server = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	p.served.Go(func() { _ = p.server.Serve(&counted{listener, p}) })
	return nil
}

// Vanish breaks all connections and refuses others.
func (p *Proxy) Vanish() {
	_ = p.server.Close()
	p.Cut()
	p.served.Wait()
}

// Cut breaks all connections, those that carry streams too.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.connections {
		_ = c.Close()
	}
	clear(p.connections)
}

type counted struct {
	net.Listener
	p *Proxy
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.p.mu.Lock()
		l.p.connections[c] = true
		l.p.mu.Unlock()
	}
	return c, err
}

// On sets a fault for requests of a method whose path has the part; empty is
// any. It happens so many times, always when times is negative.
func (p *Proxy) On(method, part string, times int, act Act) *Fault {
	f := &Fault{method: method, part: part, times: times, act: act, Hit: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
	return f
}

// Mend removes all faults, and lets go of what hangs.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
	close(p.mended)
	p.mended = make(chan struct{})
}

func (p *Proxy) match(r *http.Request) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if (f.method == "" || f.method == r.Method) && strings.Contains(r.URL.Path, f.part) && f.times != 0 {
			f.times--
			select {
			case <-f.Hit:
			default:
				close(f.Hit)
			}
			return f
		}
	}
	return nil
}

// ServeHTTP answers one request as the faults say.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f := p.match(r); f != nil {
		f.act(w, r, p.forward)
		return
	}
	p.forward.ServeHTTP(w, r)
}

// Hang answers nothing until Mend, and then what the engine says, as one does
// that was stopped and goes on.
func (p *Proxy) Hang(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	p.mu.Lock()
	mended := p.mended
	p.mu.Unlock()
	body, _ := io.ReadAll(r.Body) // or the server does not notice that the client has left
	select {
	case <-r.Context().Done():
	case <-mended:
		r.Body = io.NopCloser(bytes.NewReader(body))
		forward.ServeHTTP(w, r)
	}
}

// Swallow lets the engine do what was asked, and breaks the connection instead
// of answering.
func Swallow(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	forward.ServeHTTP(httptest.NewRecorder(), r)
	Drop(w, r, forward)
}

// Drop breaks the connection before the engine hears of the request.
func Drop(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = c.Close()
	}
}
