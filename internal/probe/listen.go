package probe

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locald/locald/internal/sockets"
	"github.com/locald/locald/runtime"
)

// Listen is ready when the instance itself listens on Port, as
// runtime.Listener tells; it then returns. With Wait greater than 0 it is also
// ready when the instance still does not after Wait; the Hint then says how to
// write what seems to be meant.
type Listen struct {
	Port int
	Wait time.Duration
}

// explainAfter is when it is worth the cost to look who else has the port.
const explainAfter = 500 * time.Millisecond

// Run implements Check.
func (l Listen) Run(ctx context.Context, in runtime.Instance, report func(Finding)) {
	listener, ok := in.(runtime.Listener)
	if !ok {
		report(Finding{Detail: "nobody can tell what it listens on"})
		return
	}
	until(ctx, report, func(waited time.Duration) Finding {
		ports, err := listener.Listening(ctx)
		if err != nil {
			return Finding{Detail: err.Error()}
		}
		if slices.Contains(ports, l.Port) {
			return Finding{Ready: true}
		}
		f := l.missing(ports, waited)
		f.Ready = l.Wait > 0 && waited >= l.Wait
		return f
	})
}

// missing says what the instance does instead of listening on the port.
func (l Listen) missing(ports []int, waited time.Duration) Finding {
	if len(ports) > 0 {
		return Finding{
			Detail: fmt.Sprintf("it listens on %s, not on %d", words(ports), l.Port),
			Hint:   fmt.Sprintf("port = %d", slices.Min(ports)),
		}
	}
	f := Finding{Detail: "nothing listens on " + strconv.Itoa(l.Port)}
	if l.Wait > 0 {
		f.Hint = `type = "worker"`
	}
	if waited < explainAfter {
		return f
	}
	if h, ok := sockets.HolderOf(l.Port); ok {
		f.Detail = fmt.Sprintf("port %d is listened on by %s, not by this service", l.Port, h)
		f.Hint = ""
	}
	return f
}

func words(ports []int) string {
	sorted := slices.Sorted(slices.Values(ports))
	list := make([]string, len(sorted))
	for i, p := range sorted {
		list[i] = strconv.Itoa(p)
	}
	return strings.Join(list, ", ")
}
