package runtime

import (
	"context"
	"sync"
)

// Pulls are the images on their way to a runtime. Whoever asks for one that is
// joins: it is brought once, and everybody who waits sees how far it is. Image is
// what a pull brings.
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
	waiting map[*func(Progress)]bool
	last    map[string]Progress // of each layer, and of the whole, for who joins
}

// Join brings an image with pull, unless that is under way, and returns what
// came of it. report is not called any more when Join returns. The context of pull
// ends when the last who waits for it has left.
func (p *Pulls[Image]) Join(ctx context.Context, name string, report func(Progress), pull func(context.Context, *Layers) (Image, error)) (Image, error) {
	p.mu.Lock()
	f := p.flying[name]
	if f == nil {
		f = &flight[Image]{done: make(chan struct{}), waiting: map[*func(Progress)]bool{}, last: map[string]Progress{}}
		if p.flying == nil {
			p.flying = map[string]*flight[Image]{}
		}
		p.flying[name] = f
		var flying context.Context
		flying, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
		go func() {
			defer close(f.done)
			defer p.over(name, f)
			layers := NewLayers(name, f.tell)
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
func (p *Pulls[Image]) leave(name string, f *flight[Image], report *func(Progress)) {
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

func (f *flight[Image]) enter(report *func(Progress)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting[report] = true
	for _, p := range f.last {
		(*report)(p)
	}
}

func (f *flight[Image]) tell(p Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last[p.Layer] = p
	for report := range f.waiting {
		(*report)(p)
	}
}
