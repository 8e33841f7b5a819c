package probe

import (
	"context"
	"net"
	"strconv"

	"github.com/locald/locald/runtime"
)

// TCP is ready when Addr ("127.0.0.1:3000") accepts a connection. On this
// host's own addresses only the process instance's own listener counts, and
// elsewhere the connection must live, as with Published.
type TCP struct {
	Addr string
	Policy
}

// Run implements Check. It returns when ctx ends.
func (t TCP) Run(ctx context.Context, in runtime.Instance, report func(Finding)) {
	host, text, err := net.SplitHostPort(t.Addr)
	port, err2 := strconv.Atoi(text)
	if err != nil || err2 != nil {
		report(Finding{Detail: "health: " + strconv.Quote(t.Addr) + " is not an address"})
		return
	}
	own := in.Ref().Kind == runtime.Process && local(host)
	t.steadily(ctx, report, func(ctx context.Context) string {
		if own {
			if why := foreign(ctx, in, port); why != "" {
				return t.Addr + ": " + why
			}
		}
		try := answers
		if own {
			try = connects
		}
		if err := try(ctx, t.Addr); err != nil {
			return t.Addr + ": " + Plain(err)
		}
		return ""
	})
}

func connects(ctx context.Context, addr string) error {
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
