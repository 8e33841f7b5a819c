package probe

import (
	"context"
	"errors"
	"strings"

	"github.com/locald/locald/runtime"
)

// ErrUnsupported is returned by ListenNotify where the system does not say who
// sends a message.
var ErrUnsupported = errors.New("notify is not supported on this system")

// Notify is ready when the instance says so on Socket with READY=1, as
// sd_notify(3) describes, and no longer with STOPPING=1. STATUS= becomes the
// Detail.
type Notify struct{ Socket *NotifySocket }

// Run implements Check. It returns when ctx ends.
func (n Notify) Run(ctx context.Context, in runtime.Instance, report func(Finding)) {
	report = changes(report)
	f := Finding{Detail: "it has not said READY=1"}
	report(f)
	owner, _ := in.(runtime.Listener)
	err := n.Socket.receive(ctx, func(m message) {
		if m.from(owner) {
			f = m.apply(f)
			report(f)
		}
	})
	if err != nil && ctx.Err() == nil {
		report(Finding{Detail: "notify: " + err.Error()})
	}
}

// message is one datagram of sd_notify.
type message struct {
	text     string
	pid, uid int
	self     int // our uid
}

// from reports whether the message is one of the instance's: of our user, and
// of one of its processes. A sender that has ended already, as systemd-notify
// does, can no longer be told from others of this user, who alone can reach the
// socket.
func (m message) from(owner runtime.Listener) bool {
	if m.uid != m.self || m.pid <= 0 {
		return false
	}
	// Whether it lives is asked last, or one that ends in between would count
	// as a living stranger.
	return owner == nil || owner.Owns(m.pid) || !alive(m.pid)
}

// apply is the finding after the message.
func (m message) apply(f Finding) Finding {
	for line := range strings.SplitSeq(m.text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		switch {
		case key == "READY" && value == "1":
			f.Ready = true
			f.Detail = ""
		case key == "STOPPING" && value == "1":
			f.Ready = false
			f.Detail = "it says that it stops"
		case key == "STATUS" && !f.Ready:
			f.Detail = "it has not said READY=1, but: " + value
		}
	}
	return f
}
