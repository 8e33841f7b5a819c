package faultregistry

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/locald/locald/hack/internal/images"
)

// Faults says how the registry misbehaves. The zero value is a good registry.
type Faults struct {
	Rate     int   // bytes a second for each layer; 0 is as fast as it goes
	CutAfter int64 // breaks the connection after so many bytes of a layer; 0 never
	Cuts     int   // how many times CutAfter happens; 0 is always
	Status   int   // answers every request with this status; 0 does not

	Only       string // of layers: those whose address contains it
	Flip       int64  // inverts the byte of each layer that has this number, counted from 1
	Short      int64  // has only so many bytes of each layer
	Stall      int64  // sends nothing more after so many bytes of a layer, until the client leaves
	NoRange    bool   // sends everything, whatever is asked for
	User, Word string // whom to let in, with which password; empty is everyone
	// Before is called with each request before it is answered.
	Before func(*http.Request)
}

// Registry serves images at Addr until Close.
type Registry struct {
	address string
	store   http.Handler

	mu     sync.Mutex
	server *http.Server
	served chan struct{} // closed when server has ended
	faults Faults
	cuts   int
	asked  []Request
}

// Request is one that came.
type Request struct{ Method, Path, Range string }

// Requests returns what was asked for since Misbehave was last called.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

// Listen starts a registry at address, "127.0.0.1:0" for any free port.
func Listen(address string) (*Registry, error) {
	r := &Registry{address: address, store: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	return r, r.Up()
}

// Up serves again, at the same address, what the registry had when it went down.
func (r *Registry) Up() error {
	listener, err := net.Listen("tcp", r.address)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.address = listener.Addr().String()
	server, served := &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	r.server, r.served = server, served
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	return nil
}

// Down breaks all connections and answers nobody until Up.
func (r *Registry) Down() { _ = r.Close() }

// Addr is host:port, which is also the first part of an image's name.
func (r *Registry) Addr() string { return r.address }

// Close breaks all connections and ends the registry.
func (r *Registry) Close() error {
	r.mu.Lock()
	server, served := r.server, r.served
	r.mu.Unlock()
	err := server.Close()
	<-served
	return err
}

// Misbehave replaces the faults for the requests that come from now on.
func (r *Registry) Misbehave(faults Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults, r.cuts, r.asked = faults, 0, nil
}

// Push stores an image as tag ("app:1") and returns its whole name. It must not
// be called while the registry misbehaves.
func (r *Registry) Push(tag string, image v1.Image) (string, error) {
	ref, err := name.ParseReference(r.address+"/"+tag, name.Insecure)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, image); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	return ref.String(), nil
}

// PushIndex is Push for an index of several platforms.
func (r *Registry) PushIndex(tag string, index v1.ImageIndex) (string, error) {
	ref, err := name.ParseReference(r.address+"/"+tag, name.Insecure)
	if err != nil {
		return "", err
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	return ref.String(), nil
}

// PushTestImages pushes everything that hack/testimages has built, and returns
// the whole names.
func (r *Registry) PushTestImages() ([]string, error) {
	store, err := images.Default()
	if err != nil {
		return nil, err
	}
	all, err := store.Images()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, image := range all {
		for _, tag := range image.Tags {
			name, err := r.Push(tag, image.Image)
			if err != nil {
				return nil, err
			}
			names = append(names, name)
		}
	}
	return names, nil
}

// ServeHTTP answers as the faults say.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	layer := request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/blobs/")
	faults := r.current(request, layer)
	if faults.Before != nil {
		faults.Before(request)
	}
	if user, word, _ := request.BasicAuth(); faults.User != "" && (user != faults.User || word != faults.Word) {
		faults.Status = http.StatusUnauthorized
	}
	if faults.Status != 0 {
		refuse(w, request, faults.Status)
		return
	}
	if layer {
		if faults.NoRange {
			request.Header.Del("Range")
		}
		w = &faulty{ResponseWriter: w, request: request, faults: faults, at: offset(request)}
	}
	r.store.ServeHTTP(w, request)
}

// offset is where the answer to a request for a range begins.
func offset(request *http.Request) (at int64) {
	if _, err := fmt.Sscanf(request.Header.Get("Range"), "bytes=%d-", &at); err != nil {
		return 0
	}
	return at
}

// current returns the faults for one request, and counts a cut.
func (r *Registry) current(request *http.Request, layer bool) Faults {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, Request{request.Method, request.URL.Path, request.Header.Get("Range")})
	faults := r.faults
	if layer && !strings.Contains(request.URL.Path, faults.Only) {
		return Faults{User: faults.User, Word: faults.Word, Before: faults.Before}
	}
	if !layer || faults.CutAfter == 0 {
		return faults
	}
	if faults.Cuts > 0 && r.cuts >= faults.Cuts {
		faults.CutAfter = 0
		return faults
	}
	r.cuts++
	return faults
}

func refuse(w http.ResponseWriter, request *http.Request, status int) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Basic realm="http://%s/"`, request.Host))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, codes[status], http.StatusText(status))
}

var codes = map[int]string{
	http.StatusUnauthorized:    "UNAUTHORIZED",
	http.StatusForbidden:       "DENIED",
	http.StatusNotFound:        "MANIFEST_UNKNOWN",
	http.StatusTooManyRequests: "TOOMANYREQUESTS",
}

// faulty is the body of one layer.
type faulty struct {
	http.ResponseWriter
	request *http.Request
	faults  Faults
	at      int64 // of the layer
	sent    int64
}

const piece = 32 << 10

// WriteHeader says less than there is where Short wants that.
func (f *faulty) WriteHeader(status int) {
	if f.faults.Short > 0 && status == http.StatusOK {
		f.Header().Set("Content-Length", fmt.Sprint(f.faults.Short))
	}
	f.ResponseWriter.WriteHeader(status)
}

func (f *faulty) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		n, err := f.ResponseWriter.Write(f.damaged(b[:min(len(b), piece)]))
		written += n
		f.sent += int64(n)
		f.at += int64(n)
		if err != nil {
			return written, err
		}
		if err := f.misbehave(n); err != nil {
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}

// damaged is what is sent instead of b.
func (f *faulty) damaged(b []byte) []byte {
	if f.faults.Short > 0 {
		b = b[:max(0, min(int64(len(b)), f.faults.Short-f.at))]
	}
	if i := f.faults.Flip - 1 - f.at; f.faults.Flip > 0 && i >= 0 && i < int64(len(b)) {
		b = bytes.Clone(b)
		b[i] = ^b[i]
	}
	return b
}

func (f *faulty) misbehave(n int) error {
	controller := http.NewResponseController(f.ResponseWriter)
	if n == 0 {
		return io.ErrShortWrite
	}
	if f.faults.Rate > 0 {
		if err := controller.Flush(); err != nil {
			return err
		}
		pause := time.NewTimer(time.Duration(n) * time.Second / time.Duration(f.faults.Rate))
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-f.request.Context().Done():
			return f.request.Context().Err()
		}
	}
	if f.faults.Stall > 0 && f.sent >= f.faults.Stall {
		if err := controller.Flush(); err != nil {
			return err
		}
		<-f.request.Context().Done()
		return f.request.Context().Err()
	}
	if f.faults.CutAfter == 0 || f.sent < f.faults.CutAfter {
		return nil
	}
	connection, _, err := controller.Hijack()
	if err != nil {
		return err
	}
	_ = connection.Close()
	return io.ErrClosedPipe
}
