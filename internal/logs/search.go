package logs

import (
	"context"
	goruntime "runtime"
)

// search hands out what is found in segments, in order. As many are looked
// through at once as there are processors.
func (c *cursor) search(list []segment) error {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	parts := make(chan *part, goruntime.GOMAXPROCS(0)-1)
	go func() {
		defer close(parts)
		for _, s := range list {
			p := &part{found: make(chan finding, 4)}
			select {
			case parts <- p:
				go p.look(ctx, c.dir, s, c.filter)
			case <-ctx.Done():
				return
			}
		}
	}()
	var err error
	for p := range parts {
		for f := range p.found {
			if err == nil {
				err = c.accept(f)
			}
			if err != nil {
				cancel() // and take what they hold
			}
		}
		if err == nil && p.err != nil {
			err = p.err
			cancel()
		}
		if p.end.started {
			c.started, c.next, c.before = true, p.end.next, p.end.before
		}
	}
	if err != nil {
		return err
	}
	return c.flush()
}

// part is what is found in one segment.
type part struct {
	found chan finding
	end   place // once found is closed
	err   error // the same
}

// finding is the header of the first block of a part, or lines.
type finding struct {
	first *header
	lines []Line
}

// look finds what passes the filter in a segment.
func (p *part) look(ctx context.Context, dir string, s segment, f filter) {
	defer close(p.found)
	hand := func(f finding) error {
		select {
		case p.found <- f:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.grep = newMatcher(f.grep.re)
	c := newCursor(ctx, dir, f, func(batch []Line) error { return hand(finding{lines: cloned(batch)}) })
	defer c.close()
	c.begun = func(h header) error { return hand(finding{first: &h}) }
	if p.err = c.open(s, -1); p.err == nil {
		p.err = c.drain()
	}
	p.end = c.place
}

// cloned is a batch that outlives the buffer that it was found in.
func cloned(batch []Line) []Line {
	var size int
	for _, l := range batch {
		size += len(l.Data)
	}
	all := make([]byte, 0, size)
	lines := make([]Line, len(batch))
	for i, l := range batch {
		all = append(all, l.Data...)
		l.Data = all[len(all)-len(l.Data):]
		lines[i] = l
	}
	return lines
}

// accept goes on with what was found in a segment.
func (c *cursor) accept(f finding) error {
	if f.first != nil {
		return c.missing(*f.first)
	}
	for _, l := range f.lines {
		if c.started && l.Seq < c.next {
			continue // read before, in a segment that was cut since
		}
		if err := c.append(l); err != nil {
			return err
		}
	}
	return nil
}
