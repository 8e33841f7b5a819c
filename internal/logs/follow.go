package logs

import (
	"context"
	"errors"
	"time"
)

// Follow calls emit for what the store holds and q asks for, and then for every
// such line that is written, until ctx ends; that, or the coming of q.Until, is
// no error. It goes on across runs, new segments and the deletion of the
// directory, and waits for one that does not exist yet. The batch and its Data
// are valid during emit only. A slow emit delays nobody else: what it has not
// taken stays in the store, and if it is deleted there, a gap says so. An error
// of emit ends Follow with that error.
func (r *Reader) Follow(ctx context.Context, q Query, emit func([]Line) error) error {
	return r.follow(q, newCursor(ctx, r.dir, newFilter(q), emit))
}

// follow is Follow with a cursor, which it closes.
func (r *Reader) follow(q Query, c *cursor) error {
	defer c.close()
	ctx := c.ctx
	if !q.Until.IsZero() {
		until, cancel := context.WithDeadline(ctx, q.Until)
		defer cancel()
		if until.Err() != nil && ctx.Err() == nil {
			// The past needs no waiting, but it needs reading.
			return ended(ctx, c.present(q.Tail))
		}
		ctx, c.ctx = until, until
	}
	// The watch comes before the first look, or what is written in between
	// would be seen late.
	w := watch(r.dir)
	defer func() { w.close() }()
	if err := c.present(q.Tail); err != nil {
		return ended(ctx, err)
	}
	for armed := false; ; {
		before := c.before
		if err := c.advance(w.listed()); err != nil {
			return ended(ctx, err)
		}
		if c.scan != nil {
			c.scan.release()
		}
		var err error
		switch came := c.before - before; {
		case came > 0:
			armed = false
			err = pause(ctx, restAfter(came))
		case !armed && c.scan != nil:
			// What came in between is looked for once more.
			w.arm(c.scan.f.Name())
			armed = true
		default:
			armed = false
			err = w.wait(ctx)
		}
		if err != nil {
			return nil //nolint:nilerror // the end of ctx is how a follower ends
		}
		if w.stale() {
			c.anew = c.anew || w.replaced()
			w.close()
			w = watch(r.dir)
		}
	}
}

// restAfter is how long a follower rests after a look that has found so many
// bytes, before it looks again: those who write lose little to it, and many lines
// become one output.
func restAfter(came uint64) time.Duration {
	if came < much {
		return time.Millisecond
	}
	return 20 * time.Millisecond
}

const much = 128 << 10

// ended leaves out an error that is only the end of ctx.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// advance hands out what has come since. list says that there may be new
// segments.
func (c *cursor) advance(list bool) error {
	if err := c.more(); err != nil {
		return err
	}
	for list {
		all, err := segments(c.dir)
		if err != nil {
			return err
		}
		s, ok := c.following(all)
		if !ok {
			return nil
		}
		// A writer ends a segment before it begins the next: what is there
		// once the next is, is all.
		if err := c.more(); err != nil {
			return err
		}
		if err := c.open(s, -1); err != nil {
			return err
		}
		c.seg = s
		if err := c.drain(); err != nil {
			return err
		}
	}
	return nil
}

// following is the segment after the open one.
func (c *cursor) following(list []segment) (segment, bool) {
	if c.anew && len(list) > 0 {
		c.anew, c.seg = false, segment{}
		if list[0].first < c.next {
			c.started, c.filter.after = false, 0 // it counts from 1 again
		}
	}
	for _, s := range list {
		if s.first > c.seg.first {
			return s, true
		}
	}
	return segment{}, false
}

// more hands out what was added to the open segment.
func (c *cursor) more() error {
	if c.scan == nil {
		return nil
	}
	if err := c.scan.refresh(); err != nil {
		return err
	}
	if c.scan.end < c.scan.off {
		// It was cut. What it holds is written anew, with higher numbers.
		c.scan.release()
		c.scan.off = 0
	}
	return c.drain()
}
