package cli

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/locald/locald/ipc"
)

// forever sends events and then waits until the client goes.
func forever[A any](events ...ipc.Event) ipc.Method {
	return ipc.Stream(func(ctx context.Context, _ A, send func(ipc.Event) error) error {
		for _, e := range events {
			if err := send(e); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})
}

// background starts a command; out and errs may be read while it runs.
func (b *bench) background(args ...string) (out, errs *buffer, ended <-chan int) {
	out, errs = &buffer{}, &buffer{}
	status := make(chan int, 1)
	go func() { status <- Main(b.t.Context(), args, b.io(out, errs), b.hooks()) }()
	return out, errs, status
}

func TestCtrlCWhileWaitingLeavesServicesStarting(t *testing.T) {
	t.Parallel()
	for sig, want := range map[os.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
		b := newBench(t, twoServices)
		b.serve(ipc.Table{
			ipc.CallUp: forever[ipc.UpArgs](ipc.Event{Service: "web", Event: ipc.EventStarting}),
			ipc.CallDown: ipc.Stream(func(context.Context, ipc.DownArgs, func(ipc.Event) error) error {
				t.Error("services were stopped")
				return nil
			}),
		})
		out, errs, ended := b.background("up")
		out.await(t, "web: starting")
		b.signals <- sig
		if status := <-ended; status != want || !strings.Contains(errs.String(), "hint: locald down\n") {
			t.Errorf("%v: exit %d\n%s", sig, status, errs)
		}
	}
}

// followed is a stream of log lines that goes on until the client goes.
func followed(lines ...string) ipc.Method {
	return ipc.Stream(func(ctx context.Context, args ipc.LogsArgs, send func(ipc.LogLine) error) error {
		for i, text := range lines {
			if err := send(ipc.LogLine{Seq: uint64(i), Service: "web", Stream: "stdout", Line: text}); err != nil {
				return err
			}
		}
		if !args.Follow {
			return send(ipc.LogLine{Seq: uint64(len(lines)), Service: "web", Stream: "stdout", Line: "the last word"})
		}
		<-ctx.Done()
		return ctx.Err()
	}).Patient()
}

func TestForegroundStopsServicesAndExitsWithZero(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	status := shopStatus()
	b.serve(ipc.Table{
		ipc.CallUp:     sends[ipc.UpArgs](ipc.Event{Service: "web", Event: ipc.EventHealthy}, finish(0, &status)),
		ipc.CallDown:   sends[ipc.DownArgs](ipc.Event{Service: "web", Event: ipc.EventStopped}, finish(0, nil)),
		ipc.CallLogs:   followed("hello"),
		ipc.CallStatus: replies[ipc.StatusArgs](status),
	})
	out, errs, ended := b.background("up", "--foreground")
	out.await(t, "web     │ hello\n")
	out.await(t, "NAME ")
	b.signals <- syscall.SIGWINCH
	b.signals <- syscall.SIGINT
	got := <-ended
	if got != 0 || !strings.Contains(out.String(), "web: stopped") {
		t.Errorf("exit %d\n%s%s", got, out, errs)
	}
	if strings.Count(out.String(), "hello") != 1 || !strings.HasSuffix(out.String(), "│ the last word\n") {
		t.Errorf("lines are missing or repeated:\n%s", out)
	}
}

func TestASecondCtrlCKills(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	killed := make(chan struct{})
	b.serve(ipc.Table{
		ipc.CallUp: forever[ipc.UpArgs](ipc.Event{Service: "web", Event: ipc.EventStarting}),
		ipc.CallDown: ipc.Stream(func(_ context.Context, args ipc.DownArgs, send func(ipc.Event) error) error {
			if args.Force {
				close(killed)
				return send(finish(0, nil))
			}
			if err := send(ipc.Event{Service: "web", Event: ipc.EventStopping}); err != nil {
				return err
			}
			<-killed
			return send(finish(0, nil))
		}),
		ipc.CallLogs:   followed(),
		ipc.CallStatus: replies[ipc.StatusArgs](ipc.Status{}),
	})
	out, errs, ended := b.background("up", "--foreground")
	out.await(t, "web: starting")
	b.signals <- syscall.SIGTERM
	out.await(t, "web: stopping")
	b.signals <- syscall.SIGINT
	if got := <-ended; got != 0 {
		t.Errorf("exit %d\n%s%s", got, out, errs)
	}
}

func TestFollowLeavesServicesUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.serve(ipc.Table{
		ipc.CallUp:     sends[ipc.UpArgs](ipc.Event{Service: "web", Event: ipc.EventHealthy}, finish(0, nil)),
		ipc.CallLogs:   followed("hello"),
		ipc.CallStatus: replies[ipc.StatusArgs](ipc.Status{}),
	})
	out, errs, ended := b.background("up", "-f")
	out.await(t, "web │ hello\n")
	b.signals <- syscall.SIGINT
	if got := <-ended; got != 130 {
		t.Errorf("exit %d\n%s%s", got, out, errs)
	}
}

func TestForegroundEndsWithAFailedBoot(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.serve(ipc.Table{
		ipc.CallUp:     sends[ipc.UpArgs](ipc.Event{Service: "web", Event: ipc.EventFailed, Message: "exited with 1"}, finish(1, nil)),
		ipc.CallLogs:   followed(),
		ipc.CallStatus: replies[ipc.StatusArgs](ipc.Status{}),
	})
	if got := b.run("up", "--foreground"); got.status != 1 || got.stderr != "locald: web: exited with 1\n" {
		t.Errorf("got %+v", got)
	}
}

func TestTheEnvironmentAndTheProjectAreSent(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.write("other.toml", twoServices)
	seen := make(chan ipc.UpArgs, 1)
	b.serve(ipc.Table{ipc.CallUp: ipc.Stream(func(_ context.Context, args ipc.UpArgs, send func(ipc.Event) error) error {
		seen <- args
		return send(finish(0, nil))
	})})
	b.environ = append(b.environ, "COLOUR=blue")
	if got := b.run("up", "--file", "other.toml", "--profile", "dev", "--force-recreate", "--no-deps", "web"); got.status != 0 {
		t.Fatalf("got %+v", got)
	}
	args := <-seen
	if args.Dir != b.dir || args.File != b.dir+"/other.toml" || !strings.Contains(strings.Join(args.Env, " "), "COLOUR=blue") ||
		strings.Join(args.Profiles, "") != "dev" || !args.NoDeps || !args.ForceRecreate || args.WaitTimeout != "" || args.Pull != "missing" {
		t.Errorf("got %+v", args)
	}
}
