package logs

import (
	"bufio"
	"context"
	"io"
	"os"
)

// Copy writes to out what the service wrote to stdout and stderr, byte for byte,
// as far as q asks for it; with follow it goes on as Follow does. Most of it is
// never looked at: a block of which all is wanted is handed over as it lies, if
// out is a file by the system itself.
func (r *Reader) Copy(ctx context.Context, q Query, follow bool, out io.Writer) error {
	q.Output = true
	p := &pour{out: bufio.NewWriterSize(out, pourSize)}
	p.file, _ = out.(*os.File)
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
type pour struct {
	out  *bufio.Writer
	file *os.File // what is behind out; nil when it takes nothing from the system
}

// block takes the payload of the block that a scanner is at.
func (p *pour) block(s *scanner) error {
	sent := 0
	if p.file != nil && s.length >= largeBlock {
		if err := p.out.Flush(); err != nil {
			return err
		}
		if sent = send(p.file, s.f, s.off+headerSize, s.length); sent == s.length {
			s.skip()
			return nil
		}
		p.file = nil // why it took no more, writing tells
	}
	payload, err := s.payload()
	if err != nil {
		return err
	}
	_, err = p.out.Write(payload[sent:])
	return err
}

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
