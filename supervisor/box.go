package supervisor

import "context"

// box is a queue whose sender never blocks: a channel of capacity one that
// holds everything that has not been taken yet.
type box[T any] chan []T

func newBox[T any]() box[T] { return make(box[T], 1) }

// put adds to what waits. Several may put at once.
func (b box[T]) put(items ...T) {
	for {
		select {
		case b <- items:
			return
		case waiting := <-b:
			items = append(waiting, items...)
		}
	}
}

// take returns everything that waits, or the end of ctx.
func (b box[T]) take(ctx context.Context) ([]T, error) {
	select {
	case items := <-b:
		return items, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
