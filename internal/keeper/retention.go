package keeper

import (
	"fmt"

	"github.com/locald/locald/internal/logs"
)

// Keep says how much the log stores in dir, which share it, keep from now on. A
// store that is being written keeps the size of its segments.
func (k *Keeper) Keep(dir string, much Retention) error {
	if err := k.wire.Send(request{Keep: &keepRequest{Dir: []byte(dir), Logs: much}}); err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return nil
}

// What a budget is divided into: the newest segment of a store always stays.
const (
	segmentsInBudget = 16
	smallestSegment  = 16 << 10
)

// segment is the size of the segments that fit a budget.
func (r Retention) segment() int64 {
	if r.SegmentBytes > 0 || r.Bytes <= 0 {
		return r.SegmentBytes
	}
	return min(max(r.Bytes/segmentsInBudget, smallestSegment), logs.SegmentBytes)
}
