package builtin

import (
	"context"
	"sync"

	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/runtime"
)

// pulls are the images on their way. Whoever asks for one that is joins: it is
// brought once, and everybody who waits sees how far it is.
type pulls struct {
	mu     sync.Mutex
	flying map[string]*flight // by name
}

// flight is one image on its way. It is over, or given up when the last who
// waited for it has left.
type flight struct {
	done   chan struct{}
	image  *oci.Image // once done, as is err
	err    error
	cancel context.CancelFunc

	mu      sync.Mutex
	waiting map[*func(runtime.Progress)]bool
	last    map[string]runtime.Progress // of each layer, and of the whole, for who joins
}

// join brings an image with pull, unless that is done already, and returns what
// came of it. report is not called any more when join returns.
func (p *pulls) join(ctx context.Context, name string, report func(runtime.Progress), pull func(context.Context, func(oci.Progress)) (*oci.Image, error)) (*oci.Image, error) {
	p.mu.Lock()
	f := p.flying[name]
	if f == nil {
		f = &flight{done: make(chan struct{}), waiting: map[*func(runtime.Progress)]bool{}, last: map[string]runtime.Progress{}}
		if p.flying == nil {
			p.flying = map[string]*flight{}
		}
		p.flying[name] = f
		var flying context.Context
		flying, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		go func() {
			defer close(f.done)
			defer p.over(name, f)
			layers := runtime.NewLayers(name, f.tell)
			f.image, f.err = pull(flying, func(o oci.Progress) { told(layers, o) })
		}()
	}
	f.enter(&report)
	p.mu.Unlock()
	defer p.leave(name, f, &report)
	select {
	case <-f.done:
		return f.image, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pulls) over(name string, f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.cancel()
	if p.flying[name] == f {
		delete(p.flying, name)
	}
}

// leave ends who waits. After the last one the image is asked for anew.
func (p *pulls) leave(name string, f *flight, report *func(runtime.Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, report)
	if len(f.waiting) == 0 {
		f.cancel()
		if p.flying[name] == f {
			delete(p.flying, name)
		}
	}
}

func (f *flight) enter(report *func(runtime.Progress)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[report] = true
	for _, p := range f.last {
		(*report)(p)
	}
}

func (f *flight) tell(p runtime.Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last[p.Layer] = p
	for report := range f.waiting {
		(*report)(p)
	}
}
