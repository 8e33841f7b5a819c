package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/locald/locald/runtime"
)

const (
	// connectTimeout is for addresses that swallow what they get.
	connectTimeout = 2 * time.Second
	// lifetime is how long a connection must live to be one to the service:
	// the proxy of an engine accepts at once, and closes when nobody is behind
	// it.
	lifetime = 20 * time.Millisecond
)

// Published is ready when a connection to Addr ("127.0.0.1:8080") lives for a
// while or gives bytes, so that it is one to the service and not only to a
// proxy in front of it. It then returns.
type Published struct{ Addr string }

// Run implements Check.
func (p Published) Run(ctx context.Context, _ runtime.Instance, report func(Finding)) {
	until(ctx, report, func(time.Duration) Finding {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		if err := answers(ctx, p.Addr); err != nil {
			return Finding{Detail: p.Addr + ": " + Plain(err)}
		}
		return Finding{Ready: true}
	})
}

var errClosedAtOnce = errors.New("accepts connections and closes them at once")

// answers connects to addr and waits whether the connection lives.
func answers(ctx context.Context, addr string) error {
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	end := time.Now().Add(lifetime)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		return context.DeadlineExceeded
	}
	if err := conn.SetReadDeadline(end); err != nil {
		return err
	}
	switch _, err := conn.Read(make([]byte, 1)); {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return errClosedAtOnce
	default:
		return err
	}
}

// dial connects to "host:port", or to the Unix socket at a path.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// Plain is an error without the addresses that package net puts before it.
func Plain(err error) string {
	var errno syscall.Errno
	var wrong *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed the connection without an answer"
	case errors.As(err, &wrong):
		return wrong.Err.Error()
	}
	return err.Error()
}
