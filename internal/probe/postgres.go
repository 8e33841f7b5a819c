package probe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/locald/locald/runtime"
)

// Postgres is ready when the server at Addr answers a start-up message with
// anything but "the database system is starting up". It then returns. Addr is
// "127.0.0.1:5432" or the path of a Unix socket. A server on the port that is
// not of a process instance itself does not count.
type Postgres struct{ Addr, User, Database string }

// Run implements Check.
func (p Postgres) Run(ctx context.Context, in runtime.Instance, report func(Finding)) {
	until(ctx, report, func(time.Duration) Finding {
		if _, port, err := net.SplitHostPort(p.Addr); err == nil {
			if number, err := strconv.Atoi(port); err == nil {
				if why := foreign(ctx, in, number); why != "" {
					return Finding{Detail: why}
				}
			}
		}
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		if err := p.ask(ctx); err != nil {
			return Finding{Detail: "postgres at " + p.Addr + ": " + Plain(err)}
		}
		return Finding{Ready: true}
	})
}

// notYet is the SQLSTATE cannot_connect_now, of a server that is about to serve.
const notYet = "57P03"

var errProtocol = errors.New("answers in another protocol")

// ask does the beginning of the protocol's start-up, version 3.0.
func (p Postgres) ask(ctx context.Context) error {
	conn, err := dial(ctx, p.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := conn.Write(p.startup()); err != nil {
		return err
	}
	var head [5]byte
	answer := bufio.NewReader(conn)
	if _, err := io.ReadFull(answer, head[:]); err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint32(head[1:])) - 4
	if length < 0 || length > 64<<10 {
		return errProtocol
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(answer, body); err != nil {
		return err
	}
	switch head[0] {
	case 'R':
		if len(body) >= 4 && binary.BigEndian.Uint32(body) == 0 {
			// A session has begun; ending it politely keeps the server's log
			// clean.
			_, _ = conn.Write([]byte{'X', 0, 0, 0, 4})
		}
		return nil
	case 'E':
		if field(body, 'C') == notYet {
			return errors.New(field(body, 'M'))
		}
		return nil
	}
	return errProtocol
}

func (p Postgres) startup() []byte {
	b := []byte{0, 0, 0, 0, 0, 3, 0, 0}
	for _, s := range []string{"user", p.User, "database", p.Database, "application_name", "locald"} {
		b = append(append(b, s...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

// field is one field of an ErrorResponse.
func field(body []byte, code byte) string {
	for part := range bytes.SplitSeq(body, []byte{0}) {
		if len(part) > 0 && part[0] == code {
			return string(part[1:])
		}
	}
	return ""
}
