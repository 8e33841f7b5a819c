package outer

import (
	"context"
	"sync"

	"github.com/locald/locald/runtime"
)

// Pulls are the images on their way. Whoever asks for one that is joins: it is
// brought once, and everybody who waits sees how far it is. Image is what a pull
// brings.
type Pulls[Image any] struct {
	mu     sync.Mutex
	flying map[string]*flight[Image] // by name
}

// flight is one image on its way. It is over, or given up when the last who
// waited for it has left.
type flight[Image any] struct {
	done   chan struct{}
	image  Image // once done, as is err
	err    error
	cancel context.CancelFunc

	mu      sync.Mutex
	waiting map[*func(runtime.Progress)]bool
	last    map[string]runtime.Progress // of each layer, and of the whole, for who joins
}

// Join brings an image with pull, unless that is done already, and returns what
// came of it. report is not called any more when Join returns.
func (p *Pulls[Image]) Join(ctx context.Context, name string, report func(runtime.Progress), pull func(context.Context, *runtime.Layers) (Image, error)) (Image, error) {
	p.mu.Lock()
	f := p.flying[name]
	if f == nil {
		f = &flight[Image]{done: make(chan struct{}), waiting: map[*func(runtime.Progress)]bool{}, last: map[string]runtime.Progress{}}
		if p.flying == nil {
			p.flying = map[string]*flight[Image]{}
		}
		p.flying[name] = f
		var flying context.Context
		flying, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		go func() {
			defer close(f.done)
			defer p.over(name, f)
			layers := runtime.NewLayers(name, f.tell)
			f.image, f.err = pull(flying, layers)
		}()
	}
	f.enter(&report)
	p.mu.Unlock()
	defer p.leave(name, f, &report)
	select {
	case <-f.done:
		return f.image, f.err
	case <-ctx.Done():
		var none Image
		return none, ctx.Err()
	}
}

func (p *Pulls[Image]) over(name string, f *flight[Image]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.cancel()
	if p.flying[name] == f {
		delete(p.flying, name)
	}
}

// leave ends who waits. After the last one the image is asked for anew.
func (p *Pulls[Image]) leave(name string, f *flight[Image], report *func(runtime.Progress)) {
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

func (f *flight[Image]) enter(report *func(runtime.Progress)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[report] = true
	for _, p := range f.last {
		(*report)(p)
	}
}

func (f *flight[Image]) tell(p runtime.Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last[p.Layer] = p
	for report := range f.waiting {
		(*report)(p)
	}
}
