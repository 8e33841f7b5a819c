package faultregistry

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Faults says how the registry misbehaves. The zero value is a good registry.
type Faults struct {
	Rate     int   // bytes a second for each layer; 0 is as fast as it goes
	CutAfter int64 // breaks the connection after so many bytes of a layer; 0 never
	Cuts     int   // how many times CutAfter happens; 0 is always
	Status   int   // answers every request with this status; 0 does not
}

// Registry serves images at Addr until Close.
type Registry struct {
	server  *http.Server
	address string
	store   http.Handler
	served  chan struct{}

	mu     sync.Mutex
	faults Faults
	cuts   int
}

// Listen starts a registry at address, "127.0.0.1:0" for any free port.
func Listen(address string) (*Registry, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	r := &Registry{
		address: listener.Addr().String(),
		store:   registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		served:  make(chan struct{}),
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(r.served)
		_ = r.server.Serve(listener)
	}()
	return r, nil
}

// Addr is host:port, which is also the first part of an image's name.
func (r *Registry) Addr() string { return r.address }

// Close breaks all connections and ends the registry.
func (r *Registry) Close() error {
	err := r.server.Close()
	<-r.served
	return err
}

// Misbehave replaces the faults for the requests that come from now on.
func (r *Registry) Misbehave(faults Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults, r.cuts = faults, 0
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

// ServeHTTP answers as the faults say.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	layer := request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/blobs/")
	faults := r.current(layer)
	if faults.Status != 0 {
		refuse(w, request, faults.Status)
		return
	}
	if layer && (faults.Rate > 0 || faults.CutAfter > 0) {
		w = &faulty{ResponseWriter: w, request: request, faults: faults}
	}
	r.store.ServeHTTP(w, request)
}

// current returns the faults for one request, and counts a cut.
func (r *Registry) current(layer bool) Faults {
	r.mu.Lock()
	defer r.mu.Unlock()
	faults := r.faults
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
	sent    int64
}

const piece = 32 << 10

func (f *faulty) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		n, err := f.ResponseWriter.Write(b[:min(len(b), piece)])
		written += n
		f.sent += int64(n)
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

func (f *faulty) misbehave(n int) error {
	controller := http.NewResponseController(f.ResponseWriter)
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
