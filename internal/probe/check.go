package probe

import (
	"context"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/locald/locald/runtime"
)

// Finding is what a Check thinks of an instance.
type Finding struct {
	Ready bool

	// Detail says why it is not ready, for people: "nothing listens on 3000",
	// "GET /healthz: 503 Service Unavailable". It may contain what the service
	// said, and must be shown as such.
	Detail string

	// Hint is something to type: `type = "worker"`.
	Hint string

	// Overdue is set when an instance that never was ready has had its start
	// period and its retries.
	Overdue bool
}

// Check is a way to find out whether an instance is ready.
type Check interface {
	// Run reports what it finds, and then each change of mind, until there is
	// nothing more to find or ctx ends. No call of report happens after it has
	// returned. The caller ends ctx when the instance ends.
	Run(ctx context.Context, in runtime.Instance, report func(Finding))
}

// Alive is the check of a service that is ready as soon as it has started.
type Alive struct{}

// Run reports that the instance is ready.
func (Alive) Run(_ context.Context, _ runtime.Instance, report func(Finding)) {
	report(Finding{Ready: true})
}

// changes passes on findings that differ from the one before.
func changes(report func(Finding)) func(Finding) {
	var last Finding
	first := true
	return func(f Finding) {
		if first || f != last {
			report(f)
		}
		first, last = false, f
	}
}

// The pace of probing before an instance is ready: what it waits grows with
// what it has waited, so that it is late by a hundredth at most, but a probe
// that takes long is not busy for more than half of the time.
const (
	fastest = time.Millisecond
	slowest = time.Second
	late    = 100
)

// pace is the pause after a probe that took so long, waited after the first.
func pace(waited, took time.Duration) time.Duration {
	return min(max(waited/late, took, fastest), slowest)
}

// sleep waits for d and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// until tries until an attempt finds the instance ready, and reports on the
// way.
func until(ctx context.Context, report func(Finding), attempt func(waited time.Duration) Finding) {
	report = changes(report)
	begin := time.Now()
	for {
		asked := time.Since(begin)
		f := attempt(asked)
		if ctx.Err() != nil {
			return
		}
		report(f)
		waited := time.Since(begin)
		if f.Ready {
			return
		}
		held, slept := rest(ctx, pace(waited, waited-asked))
		if !slept {
			return
		}
		begin = begin.Add(held)
	}
}

// rest is sleep, and says how long the daemon did not run meanwhile: that is not
// the instance's time.
func rest(ctx context.Context, d time.Duration) (held time.Duration, slept bool) {
	began := time.Now()
	slept = sleep(ctx, d)
	if held = time.Since(began) - d; held < pause {
		held = 0
	}
	return held, slept
}

// pause is how late a timer may be until it means that the daemon did not run.
const pause = time.Second

// foreign says why a port of this host does not count for a process: none of
// its own listens there. It is "" when one does, or when nobody can tell.
func foreign(ctx context.Context, in runtime.Instance, port int) string {
	l, ok := in.(runtime.Listener)
	if !ok || in.Ref().Kind != runtime.Process {
		return ""
	}
	ports, err := l.Listening(ctx)
	switch {
	case err != nil:
		return err.Error()
	case slices.Contains(ports, port):
		return ""
	}
	return "the service does not listen on " + strconv.Itoa(port)
}

// local reports whether host is this host's loopback.
func local(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}
