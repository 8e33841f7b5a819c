package daemon

import (
	"fmt"
	"time"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/supervisor"
)

// service is one service as clients see it.
func service(f project.Facts, s supervisor.Status, known bool, v supervisor.View, reveal bool) ipc.Service {
	out := ipc.Service{
		Name: f.Name, Type: f.Type, Runtime: f.Runtime, Desired: "down", State: "stopped", Health: "none",
		Port: f.Port, Ports: f.Ports, URL: f.URL, DependsOn: f.DependsOn,
	}
	if out.DependsOn == nil {
		out.DependsOn = []string{}
	}
	if !reveal {
		out.URL = config.MaskURL(f.URL)
	}
	if !known {
		return out
	}
	if s.Want.Up {
		out.Desired = "up"
	}
	out.State, out.Health = shown(s), health(f, s)
	if s.Stale() && s.Want.Up && s.Phase == supervisor.Stopped {
		out.State = "pending" // it has not heard of it yet
	}
	out.Run, out.Restarts = s.Run, s.Restarts
	if s.Phase != supervisor.Stopped {
		out.Code, out.Hint = s.Code, s.Hint
	}
	if s.Phase.Live() {
		out.PID, out.ContainerID = s.Info.PID, s.Info.ContainerID
		if s.Info.ContainerID != "" {
			out.Runtime, out.PID = s.Info.Engine, 0
		}
		out.StartedAt, out.ReadyAt = stamp(s.StartedAt), stamp(s.ReadyAt)
	} else if s.Exit != nil {
		out.Signal = s.Exit.Signal
		if s.Exit.Known {
			out.ExitCode = &s.Exit.Code
		}
	}
	switch s.Phase {
	case supervisor.Waiting:
		out.Reason, _ = v.Blocked(s.Service)
	case supervisor.Starting, supervisor.Unready:
		out.Reason = s.Detail
	case supervisor.Failed, supervisor.Backoff:
		out.Reason = s.Reason
	case supervisor.Finished:
		if !s.Task {
			out.Reason = s.Reason
		}
	default: // nothing to explain
	}
	return out
}

// shown is the state that people see of a phase.
func shown(s supervisor.Status) string {
	switch s.Phase {
	case supervisor.Waiting:
		return "pending"
	case supervisor.Ready, supervisor.Unready:
		return "running"
	case supervisor.Starting:
		if s.Task && !s.StartedAt.IsZero() {
			return "running"
		}
		return "starting"
	case supervisor.Finished:
		if s.Task {
			return "completed"
		}
		return "stopped"
	default:
		return string(s.Phase) // stopped, preparing, stopping, backoff, failed
	}
}

func health(f project.Facts, s supervisor.Status) string {
	if !f.Checked && (!f.Asked || !s.Info.Healthcheck) && s.Phase != supervisor.Unready {
		return "none"
	}
	switch s.Phase {
	case supervisor.Starting:
		if s.Overdue {
			return "unhealthy"
		}
		return "starting"
	case supervisor.Ready:
		return "healthy"
	case supervisor.Unready:
		return "unhealthy"
	default:
		return "none"
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// line is a log line as clients see it.
func line(service string, l logs.Line) ipc.LogLine {
	text, raw := text(l.Data)
	return ipc.LogLine{
		Seq: l.Seq, Time: l.Time.UTC(), Service: service, Run: l.Run, Stream: string(l.Stream),
		Line: text, B64: raw, Partial: l.Partial, MissingBytes: l.Missing,
	}
}

// run is one line of a history.
func run(service string, r state.Run) ipc.Run {
	return ipc.Run{
		Service: service, Run: r.Run, Start: stamp(r.Start), Ready: stamp(r.Ready), End: stamp(r.End),
		ExitCode: r.Code, Signal: r.Signal, Reason: r.Reason,
	}
}

// event is what a change means to somebody who waits; ok is false when it
// means nothing new.
func event(before, now supervisor.Status, v supervisor.View) (e ipc.Event, ok bool) {
	e = ipc.Event{Time: time.Now().UTC(), Service: now.Service}
	hopeless := now.Hopeless() && (!before.Hopeless() || before.Want != now.Want)
	switch {
	case hopeless:
		e.Event, e.Message, e.Code, e.Hint = ipc.EventFailed, now.Reason, now.Code, now.Hint
		switch {
		case now.Phase == supervisor.Failed:
		case now.StartedAt.IsZero():
			e.Message = fmt.Sprintf("%s; failed to start %d times", now.Reason, now.Early)
		default:
			e.Message = fmt.Sprintf("%s; ended %d times before it was ready", now.Reason, now.Early)
		}
		return e, true
	case now.Phase == before.Phase && now.Run == before.Run:
		if now.Phase == supervisor.Starting && before.StartedAt.IsZero() && !now.StartedAt.IsZero() {
			e.Event = ipc.EventStarted
			return e, true
		}
		return e, false
	}
	switch now.Phase {
	case supervisor.Waiting:
		e.Event = ipc.EventPending
		e.Message, _ = v.Blocked(now.Service)
	case supervisor.Preparing:
		e.Event = ipc.EventPreparing
	case supervisor.Starting:
		e.Event = ipc.EventStarting
		if !now.StartedAt.IsZero() {
			e.Event = ipc.EventStarted
		}
	case supervisor.Ready:
		e.Event, e.Hint = ipc.EventHealthy, now.Hint
	case supervisor.Finished:
		e.Event, e.Message = ipc.EventCompleted, now.Reason
		if !now.Task {
			e.Event = ipc.EventStopped
		}
	case supervisor.Stopping:
		e.Event = ipc.EventStopping
	case supervisor.Stopped:
		e.Event = ipc.EventStopped
	case supervisor.Backoff:
		e.Event, e.Message = ipc.EventNote, fmt.Sprintf("%s; restarting in %v", now.Reason, now.Delay)
	default:
		return e, false
	}
	return e, true
}
