package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/locald/locald/ipc"
)

// view shows boot events while they come.
type view interface {
	show(e ipc.Event, raw []byte)
	close() // leaves the terminal as it was found; closing twice is closing once
}

// ending is how a stream of events ended.
type ending struct {
	ipc.Event
	failures int        // of services, which were shown as they came
	first    *ipc.Event // the first of them
}

// follow makes a call that streams events, shows them, and returns the last.
func follow(ctx context.Context, client *ipc.Client, call string, args any, v view) (ending, error) {
	defer v.close()
	stream, err := client.Stream(ctx, call, args)
	if err != nil {
		return ending{}, err
	}
	defer func() { _ = stream.Close() }()
	var end ending
	for {
		var e ipc.Event
		err := stream.Next(&e)
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil {
			return ending{}, err
		}
		v.show(e, stream.Raw())
		end.Event = e
		if e.Service != "" && e.Event == ipc.EventFailed {
			end.failures++
			if end.first == nil {
				end.first = &e
			}
		}
	}
}

// boot is follow for what starts services: afterwards a table of them, and the
// exit status that the last event carries.
func (a *app) boot(ctx context.Context, client *ipc.Client, call string, args any, how bootStyle) error {
	last, err := follow(ctx, client, call, args, a.view(how))
	var signalled *interrupt
	if err != nil && errors.As(context.Cause(ctx), &signalled) {
		a.complain(how, &ipc.Error{Code: ipc.CodeTimeout, Message: "interrupted: what was asked for goes on", Hint: "locald down"})
	}
	if err != nil {
		return err
	}
	return a.conclude(last, how)
}

// bootStyle is how boot events are shown.
type bootStyle struct {
	json     bool
	lines    bool // never repaint
	detached bool // the plan was accepted, no more
	noTable  bool
}

func (a *app) view(how bootStyle) view {
	switch {
	case how.json:
		return &rawView{out: a.stdout, now: a.now, progress: seldom{every: 2 * time.Second}}
	case how.lines || !a.live(a.stdout):
		return a.lineView(a.stdout)
	}
	return newLiveView(a.stdout, a.stderr, a.paint(a.stdout), a.now)
}

// conclude prints what there is to say at the end.
func (a *app) conclude(last ending, how bootStyle) error {
	status := last.status()
	switch {
	case how.json && status != 0:
		a.complain(how, last.fault())
	case !how.json:
		if last.Status != nil && !how.noTable {
			a.stdout.say(bootTable(last.Status, a.paint(a.stdout)))
		}
		if how.detached && status == 0 {
			a.stdout.say("starting; locald status shows how far it is\n")
		}
		// The failures of services were told when they happened.
		if last.Message != "" && status != 0 && (last.failures == 0 || status != exitFailed) {
			a.complain(how, last.fault())
		}
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}

// complain says what went wrong, as the events are shown.
func (a *app) complain(how bootStyle, fault *ipc.Error) {
	if how.json {
		a.stderr.say(errorJSON(fault))
		return
	}
	a.stderr.say(errorText(fault))
}

// fault is the failure that a stream ended with: in its own words, and where it
// has none with the code and the hint of the first service that failed.
func (e ending) fault() *ipc.Error {
	fault := &ipc.Error{Code: e.Code, Message: e.Message, Hint: e.Hint}
	if e.first != nil && fault.Code == "" {
		fault.Code, fault.Service = e.first.Code, e.first.Service
		if fault.Hint == "" {
			fault.Hint = e.first.Hint
		}
	}
	if fault.Code == "" {
		fault.Code = ipc.CodeExited // or was stopped by somebody
	}
	return fault
}

// status is the exit status that the last event of a stream asks for.
func (e ending) status() int {
	switch {
	case e.Exit != nil:
		return *e.Exit
	case e.Event.Event == ipc.EventFailed:
		return exitFailed
	}
	return 0
}

// bootTable is name, state and address of every service.
func bootTable(s *ipc.Status, p paint) string {
	t := newTable("NAME", "STATE", "URL")
	for _, svc := range s.Services {
		row := t.row(svc.Name, stateText(svc), address(svc))
		row[1].colour = p.state(shownState(svc))
	}
	if len(t.rows) == 0 {
		return ""
	}
	return t.text(p, 0)
}

// stateText is a service's state, with its health where that says more.
func stateText(s ipc.Service) string {
	switch s.Health {
	case "", "none":
		return s.State
	}
	if s.State != "running" {
		return s.State
	}
	return s.State + " (" + s.Health + ")"
}

// shownState is what decides the colour.
func shownState(s ipc.Service) string {
	if s.State == "running" && (s.Health == "unhealthy" || s.Health == "starting") {
		return s.Health
	}
	return s.State
}

// address is where a service is reached.
func address(s ipc.Service) string {
	switch {
	case s.URL != "":
		return s.URL
	case s.Port != 0:
		return fmt.Sprintf("127.0.0.1:%d", s.Port)
	}
	return ""
}

// rawView prints events as the daemon sent them.
type rawView struct {
	out      *output
	now      func() time.Time
	progress seldom
}

func (v *rawView) show(e ipc.Event, raw []byte) {
	if e.Event != ipc.EventProgress || v.progress.due(e, v.now()) {
		_, _ = v.out.Write(raw)
	}
}

func (*rawView) close() {}

// lineView prints one line an event.
type lineView struct {
	out, errs *output
	paint     paint
	quiet     bool // only failures
	now       func() time.Time
	progress  seldom
}

func (a *app) lineView(o *output) *lineView {
	return &lineView{out: o, errs: a.stderr, paint: a.paint(o), now: a.now, progress: seldom{every: 5 * time.Second}}
}

func (v *lineView) show(e ipc.Event, _ []byte) {
	switch {
	case e.Event == ipc.EventFailed && e.Service != "":
		v.errs.say(failureText(e))
		return
	case v.quiet || (e.Service == "" && e.Event != ipc.EventNote):
		return
	case e.Event == ipc.EventProgress:
		if e.Layer != "" || !v.progress.due(e, v.now()) {
			return
		}
	}
	v.out.say(eventText(e, v.paint) + "\n" + hintText(e))
}

func (*lineView) close() {}

// hintText is what a service that is ready should better be told; empty when
// there is nothing.
func hintText(e ipc.Event) string {
	if e.Event != ipc.EventHealthy || e.Hint == "" {
		return ""
	}
	return cell(e.Service) + ": hint: " + cell(e.Hint) + "\n"
}

// eventText is an event in one line.
func eventText(e ipc.Event, p paint) string {
	word := eventWord(e.Event)
	text := cell(e.Message)
	switch {
	case e.Event == ipc.EventProgress && e.Total > 0 && e.Phase != layerRetrying:
		text += " " + size(e.Current) + "/" + size(e.Total)
	case e.Event == ipc.EventNote || e.Event == ipc.EventProgress:
	case text == "":
		text = p.as(p.state(eventState(e.Event)), word)
	default:
		text = p.as(p.state(eventState(e.Event)), word) + ": " + text
	}
	if e.Service == "" {
		return text
	}
	return cell(e.Service) + ": " + text
}

// eventWord is an event in the words people use.
func eventWord(event string) string {
	switch event {
	case ipc.EventPending:
		return "waiting"
	case ipc.EventHealthy:
		return "ready"
	}
	return event
}

// eventState is the state whose colour an event has.
func eventState(event string) string {
	switch event {
	case ipc.EventHealthy, ipc.EventCompleted, ipc.EventFailed, ipc.EventStopped:
		return event
	}
	return ""
}

// failureText is a failed service with the last that it wrote.
func failureText(e ipc.Event) string {
	var b strings.Builder
	message := e.Message
	if message == "" {
		message = "failed"
	}
	b.WriteString("locald: " + cell(e.Service) + ": " + safe(message) + "\n")
	for _, l := range e.Lines {
		b.WriteString(cell(e.Service) + " │ " + lineText(l) + "\n")
	}
	if e.Hint != "" {
		b.WriteString("hint: " + safe(e.Hint) + "\n")
	}
	return b.String()
}
