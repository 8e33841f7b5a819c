package container_test

import (
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
	"testing"
)

// proxy stands between a runtime and the real engine and can do to it what
// engines do: hang, go away, and forget to answer.
type proxy struct {
	t       *testing.T
	path    string
	forward *httputil.ReverseProxy
	server  *http.Server
	served  sync.WaitGroup

	mu          sync.Mutex
	connections map[net.Conn]bool
	faults      []*fault
}

// fault is what happens to requests of one kind.
type fault struct {
	method, part string // of the path
	times        int    // how often; negative is always
	do           func(w http.ResponseWriter, r *http.Request, forward http.Handler)
	hit          chan struct{} // closed the first time
}

// newProxy starts one. Its socket is in a directory of its own, with a name
// short enough for the system.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, path: filepath.Join(dir, "docker.sock"), connections: map[net.Conn]bool{}}
	p.forward = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
	p.forward.FlushInterval = -1
	p.forward.ErrorLog = log.New(io.Discard, "", 0)
	p.forward.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://")
		if !ok {
			path = "/var/run/docker.sock"
		}
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	p.listen()
	t.Cleanup(func() {
		p.vanish()
		_ = os.RemoveAll(dir)
	})
	return p
}

// env is an environment in which the proxy is the engine.
func (p *proxy) env(name string) string {
	return map[string]string{"DOCKER_HOST": "unix://" + p.path, "HOME": filepath.Dir(p.path)}[name]
}

// listen makes the engine appear.
func (p *proxy) listen() {
	p.t.Helper()
	_ = os.Remove(p.path)
	listener, err := net.Listen("unix", p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) // as a killed engine leaves it
	p.server = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	p.served.Go(func() { _ = p.server.Serve(&counted{listener, p}) })
}

// vanish breaks all connections and refuses others.
func (p *proxy) vanish() {
	_ = p.server.Close()
	p.cut()
	p.served.Wait()
}

// cut breaks all connections, those that carry streams too.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.connections {
		_ = c.Close()
	}
	clear(p.connections)
}

type counted struct {
	net.Listener
	p *proxy
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

// on sets a fault for requests of a method whose path has the part.
func (p *proxy) on(method, part string, times int, do func(http.ResponseWriter, *http.Request, http.Handler)) *fault {
	f := &fault{method: method, part: part, times: times, do: do, hit: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
	return f
}

// mend removes all faults.
func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}

func (p *proxy) match(r *http.Request) *fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if (f.method == "" || f.method == r.Method) && strings.Contains(r.URL.Path, f.part) && f.times != 0 {
			f.times--
			select {
			case <-f.hit:
			default:
				close(f.hit)
			}
			return f
		}
	}
	return nil
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f := p.match(r); f != nil {
		f.do(w, r, p.forward)
		return
	}
	p.forward.ServeHTTP(w, r)
}

// hang answers nothing for as long as the client waits.
func hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client has left
	<-r.Context().Done()
}

// swallow lets the engine do what was asked, and breaks the connection instead
// of answering.
func swallow(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	forward.ServeHTTP(httptest.NewRecorder(), r)
	drop(w, r, forward)
}

// drop breaks the connection before the engine hears of the request.
func drop(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = c.Close()
	}
}
