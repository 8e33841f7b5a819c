package logs

import (
	"context"
	"time"
)

// pollEvery is how often a store is looked at where the system cannot tell
// that it has changed.
const pollEvery = 50 * time.Millisecond

// pause is a wait between two looks.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
