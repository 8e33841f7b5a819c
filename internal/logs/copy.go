package logs

import (
	"bufio"
	"context"
	"io"
)

// Copy writes to out what the service wrote to stdout and stderr, byte for byte,
// as far as q asks for it; with follow it goes on as Follow does. Most of it is
// never looked at: a block of which all is wanted is handed over as it lies.
func (r *Reader) Copy(ctx context.Context, q Query, follow bool, out io.Writer) error {
	q.Output = true
	p := &pour{out: bufio.NewWriterSize(out, pourSize)}
	c := newCursor(ctx, r.dir, newFilter(q), p.lines)
	c.pour = p
	if follow {
		return r.follow(q, c)
	}
	defer c.close()
	return c.present(q.Tail)
}

const pourSize = 64 << 10

// pour takes payloads instead of lines.
type pour struct{ out *bufio.Writer }

// lines takes what must be chosen line by line.
func (p *pour) lines(batch []Line) error {
	for _, l := range batch {
		_, _ = p.out.Write(l.Data) // an error stays until flush
		if !l.Partial {
			_ = p.out.WriteByte('\n')
		}
	}
	return nil
}

// whole reports whether all of a block that passes the filter is wanted.
func (c *cursor) whole(h header) bool {
	return c.pass == 0 && h.first > c.filter.after && !c.filter.searches(h.stream)
}
