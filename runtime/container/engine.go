package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// errHangs is the cause of a context that was given up because the engine said
// nothing, and errClosed of one that ended with the runtime.
var (
	errHangs  = errors.New("the engine does not answer")
	errClosed = errors.New("the container runtime is closed")
)

// engine is a connection to one engine and how that engine differs.
type engine struct {
	cli     *client.Client
	place   place
	name    string // "docker", "podman"
	version string
	arch    string // of the images it runs: "amd64"
	dialect dialect

	rootless bool // it runs as an ordinary user, in a network of its own
}

// dialect is what engines that speak the Docker API do not have in common.
type dialect struct {
	events    client.Filters             // what to subscribe to
	removed   string                     // the event of a removal
	patience  time.Duration              // with a sign of life in the middle of a call
	asksFirst bool                       // a removal by force sends the stop signal before it kills
	states    []container.ContainerState // in which a container is not over, besides Docker's
	conflicts []string                   // words of refusals that are conflicts, besides the status
	absences  []string                   // words of refusals for what is not there, besides the status
	stumbles  []string                   // words of failures over what ended in the middle of a call
	complains []string                   // how the engine begins what it writes in the place of a command that it cannot execute
	logs      container.LogConfig        // so that the engine's own copy of the output stays small
	limits    func() []*container.Ulimit // that a container must not exceed; nil where the engine sees to that
	builder   build.BuilderVersion       // whose API it speaks
	lazy      bool                       // the gateway of a network is there only with the network's first container
	nameless  string                     // said where containers do not find each other by name; empty is never
	unchecked func() bool                // health checks are run by nobody unless they are asked for; nil is never
}

var dialects = map[string]dialect{
	nameDocker: {
		events: make(client.Filters).Add("type", "container").Add("label", labelInstance).
			Add("event", "die", "oom", "destroy", "health_status", "pause", "unpause", "create", "start"),
		removed:   "destroy",
		patience:  pingTime,
		complains: []string{"OCI runtime exec failed"},
		builder:   build.BuilderBuildKit,
		logs:      container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": strconv.Itoa(kept), "max-file": "1"}},
	},
	namePodman: {
		// It knows events by other names than it gives them, and labels only
		// with their value.
		events:    make(client.Filters).Add("type", "container"),
		removed:   "remove",
		patience:  4 * pingTime, // on a busy machine it says nothing for longer than pingTime, and goes on
		asksFirst: true,
		states:    []container.ContainerState{"stopping"},
		conflicts: []string{"container state improper", "name is already in use", "network already exists"},
		absences:  []string{"no such container"},
		stumbles:  []string{"no such process"}, // of /proc/PID/cgroup, which it reads to say how a container is
		complains: []string{"Error: runc: ", "Error: crun: "},
		logs:      container.LogConfig{Type: "k8s-file", Config: map[string]string{"max-size": strconv.Itoa(kept)}},
		limits:    allowed,
		builder:   build.BuilderV1,
		lazy:      true,
		nameless: "containers of this project do not find each other by name, because Podman's aardvark-dns is missing" +
			" (sudo apt-get install aardvark-dns; locald down; locald up)",
		unchecked: noSystemd,
	},
}

// noSystemd reports whether this host has no systemd, whose timers run Podman's
// health checks. Where Podman is in a virtual machine, that has one.
func noSystemd() bool {
	if goruntime.GOOS != "linux" {
		return false
	}
	_, err := os.Stat("/run/systemd/system")
	return errors.Is(err, fs.ErrNotExist)
}

// alive reports whether a container in that state has processes.
func (e *engine) alive(state container.ContainerState) bool {
	switch state {
	case container.StateRunning, container.StatePaused, container.StateRestarting:
		return true
	}
	return slices.Contains(e.dialect.states, state)
}

// conflict reports whether a call was refused for what is there: a name that is
// taken, a container that has ended.
func (e *engine) conflict(err error) bool {
	return err != nil && (cerrdefs.IsConflict(err) || mentions(err, e.dialect.conflicts))
}

// notFound reports whether a call was refused for what is not there.
func (e *engine) notFound(err error) bool {
	return err != nil && (cerrdefs.IsNotFound(err) || mentions(err, e.dialect.absences))
}

func (e *engine) close() { _ = e.cli.Close() }

// The patience with one call: after quiet the engine is asked for a sign of
// life, and given up when none comes within the patience of its dialect.
const (
	quiet    = 2 * time.Second
	pingTime = 3 * time.Second
)

// watched returns a context for one call that ends, with the cause errHangs,
// when the engine stops answering. The call itself may take as long as it
// needs.
func (e *engine) watched(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(quiet)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := e.sign(ctx, e.dialect.patience); err != nil && ctx.Err() == nil {
				cancel(errHangs)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

func (e *engine) ping(ctx context.Context) error { return e.sign(ctx, pingTime) }

// sign asks for a sign of life.
func (e *engine) sign(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := e.cli.Ping(ctx, client.PingOptions{})
	return err
}

// fault makes an error of a call readable: an engine that went away is
// ErrUnavailable, whatever the connection said. ctx is the one the call had.
func (e *engine) fault(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), errHangs):
		return fmt.Errorf("%s: %w", what, unavailable(e.place, "hangs: it stopped answering", hintRestart(e.place)))
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	case lost(err):
		return fmt.Errorf("%s: %w", what, unavailable(e.place, "went away: "+err.Error(), hintRestart(e.place)))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// lost reports whether a call failed in a way that leaves open what the engine
// did with it.
func lost(err error) bool {
	var network net.Error
	return client.IsErrConnectionFailed(err) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// steady makes a call again when the engine stumbled over what ended meanwhile,
// as it will not the next time. The call changes nothing, or nothing twice.
func (e *engine) steady(call func() error) error {
	const tries = 3
	for n := 1; ; n++ {
		err := call()
		if err == nil || n == tries || !mentions(err, e.dialect.stumbles) {
			return err
		}
	}
}

func (e *engine) inspect(ctx context.Context, id string) (container.InspectResponse, error) {
	ctx, done := e.watched(ctx)
	defer done()
	var found client.ContainerInspectResult
	err := e.steady(func() (err error) {
		found, err = e.cli.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		return err
	})
	return found.Container, e.fault(ctx, "inspect "+short(id), err)
}

func (e *engine) list(ctx context.Context, labels ...string) ([]container.Summary, error) {
	ctx, done := e.watched(ctx)
	defer done()
	filters := make(client.Filters)
	for _, label := range labels {
		filters.Add("label", label)
	}
	var found client.ContainerListResult
	err := e.steady(func() (err error) {
		found, err = e.cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
		return err
	})
	return found.Items, e.fault(ctx, "list containers", err)
}

// remove deletes a container with its anonymous volumes, running or not. One
// that is not there is removed.
func (e *engine) remove(ctx context.Context, id string) error {
	ctx, done := e.watched(ctx)
	defer done()
	_, err := e.cli.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if e.notFound(err) {
		return nil
	}
	if e.conflict(err) { // somebody else is removing it; the wait ends when it is gone
		return e.settle(ctx, id, container.WaitConditionRemoved)
	}
	return e.fault(ctx, "remove "+short(id), err)
}

// settle waits until the engine is through with a container that has ended:
// its ports are free only then.
func (e *engine) settle(ctx context.Context, id string, until container.WaitCondition) error {
	ctx, done := e.watched(ctx)
	defer done()
	waiting := e.cli.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: until})
	select {
	case <-waiting.Result:
		return nil
	case err := <-waiting.Error:
		if e.notFound(err) {
			return nil
		}
		return e.fault(ctx, "wait for "+short(id), err)
	case <-ctx.Done():
		return e.fault(ctx, "wait for "+short(id), ctx.Err())
	}
}

func short(id string) string { return id[:min(len(id), 12)] }

// said strips what the client puts before the engine's own words.
func said(err error) string {
	const prefix = "Error response from daemon: "
	text := err.Error()
	if len(text) > len(prefix) && text[:len(prefix)] == prefix {
		return text[len(prefix):]
	}
	return text
}

var _ runtime.Runtime = (*Runtime)(nil)
