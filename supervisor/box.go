package supervisor

import (
	"context"
	"sync"
)

// box is a queue whose sender never blocks. What one sender puts stays in its
// order. The lock is held for an append and nothing else.
type box[T any] struct {
	wake chan struct{} // holds one token when there may be something

	mu    sync.Mutex
	items []T
}

func newBox[T any]() *box[T] { return &box[T]{wake: make(chan struct{}, 1)} }

// put adds to what waits. Several may put at once.
func (b *box[T]) put(items ...T) {
	b.mu.Lock()
	b.items = append(b.items, items...)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// all returns everything that waits, without waiting for more.
func (b *box[T]) all() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items = nil
	return items
}

// take waits until there is something and returns all of it, or the end of ctx.
func (b *box[T]) take(ctx context.Context) ([]T, error) {
	for {
		if items := b.all(); len(items) > 0 {
			return items, nil
		}
		select {
		case <-b.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
