package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/status"

	"github.com/locald/locald/runtime"
)

// Name is what projects write to have this engine.
const Name = runtime.EngineContainerd

// Namespace is where in containerd everything of ours is: ctr -n locald shows it.
const Namespace = "locald"

// answerTime is how long containerd may take to say that it is there.
const answerTime = 5 * time.Second

// addressVar names the variable that other clients of containerd read too.
const addressVar = "CONTAINERD_ADDRESS"

// Look says what New would use. env is os.Getenv or what stands for it. It takes
// five seconds at most.
func Look(ctx context.Context, env func(string) string) runtime.FoundEngine {
	p := placeFor(env)
	f := runtime.FoundEngine{Engine: Name, Host: p.address, Source: p.source}
	c, version, err := p.dial(ctx)
	if err != nil {
		_, missing := os.Lstat(p.address)
		f.Err, f.Absent = err, p.source == usualPlace && errors.Is(missing, fs.ErrNotExist)
		return f
	}
	_ = c.Close() // it was only asked
	f.Version = version
	return f
}

// place is where containerd may be.
type place struct{ address, source string }

const usualPlace = "usual place"

// placeFor is the place that the user named, or the usual one that has something
// in it. The rootless one is looked at to say that it cannot be used.
func placeFor(env func(string) string) place {
	if named := env(addressVar); named != "" {
		return place{strings.TrimPrefix(named, "unix://"), addressVar}
	}
	usual := place{"/run/containerd/containerd.sock", usualPlace}
	if _, err := os.Lstat(usual.address); err == nil || env("XDG_RUNTIME_DIR") == "" {
		return usual
	}
	rootless := place{filepath.Join(env("XDG_RUNTIME_DIR"), "containerd", "containerd.sock"), usualPlace}
	if _, err := os.Lstat(rootless.address); err == nil {
		return rootless
	}
	return usual
}

// dial connects and asks who is there. It returns within answerTime.
func (p place) dial(ctx context.Context) (c *client.Client, version string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errHangs)
	defer cancel()
	if os.Geteuid() != 0 {
		return nil, "", p.unavailable("is for root: an ordinary user cannot give its containers a network", `engine = "builtin" in [project] of locald.toml`)
	}
	if err := p.reachable(ctx); err != nil {
		return nil, "", err
	}
	_ = log.SetLevel("panic") // what it has to say comes as errors
	c, err = client.New(p.address, client.WithDefaultNamespace(Namespace), client.WithExtraDialOpts([]grpc.DialOption{
		// One that comes back is to be noticed within a second.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second / 2},
			MinConnectTimeout: answerTime,
		}),
	}))
	if err != nil {
		return nil, "", p.unavailable("cannot be used: "+err.Error(), "unset "+addressVar)
	}
	v, err := c.Version(ctx)
	if err != nil {
		err = errors.Join(p.fault(ctx, "version", err), c.Close())
		return nil, "", err
	}
	return c, v.Version, nil
}

var errHangs = errors.New("it did not answer within " + answerTime.String())

// reachable looks at the socket before the client does, because the ways it can
// fail have different remedies.
func (p place) reachable(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", p.address)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, fs.ErrNotExist) && p.source == addressVar:
		return p.unavailable("is not running: there is no "+p.address, "unset "+addressVar+"; locald server restart")
	case errors.Is(err, fs.ErrNotExist):
		return p.unavailable("is not installed or not running: there is no "+p.address, "sudo apt-get install containerd, or sudo systemctl start containerd")
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTSOCK):
		return p.unavailable("is not running: nobody answers at "+p.address, hintRestart)
	case errors.Is(context.Cause(ctx), errHangs), errors.Is(err, syscall.EAGAIN):
		// EAGAIN is a socket whose queue is full, because nobody accepts.
		return p.unavailable("hangs: "+errHangs.Error(), hintRestart)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return p.unavailable("cannot be reached: "+err.Error(), hintRestart)
}

const hintRestart = "sudo systemctl restart containerd"

// unavailable says what is the matter with a place, in the error everybody can
// match.
func (p place) unavailable(what, hint string) error {
	where := Name
	if p.source != usualPlace {
		where = fmt.Sprintf("%s (%s=%s)", Name, p.source, p.address)
	}
	return &runtime.Fault{Code: "engine_unavailable", Hint: hint, Err: fmt.Errorf("%s %s", where, what), Kind: runtime.ErrUnavailable}
}

// native makes the errors that are told apart of those of gRPC, as some of the
// client's services do themselves.
func native(err error) error {
	if _, ok := status.FromError(err); ok {
		return errgrpc.ToNative(err)
	}
	return err
}

// fault turns an error of a call into the contract's: containerd's absence into
// ErrUnavailable, and anything else into what was being done and why it failed.
func (p place) fault(ctx context.Context, what string, err error) error {
	err = native(err)
	var known *runtime.Fault
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(context.Cause(ctx), errHangs):
		return p.unavailable("hangs: "+errHangs.Error(), hintRestart)
	case ctx.Err() != nil:
		return ctx.Err()
	case errdefs.IsUnavailable(err):
		return p.unavailable("does not answer: "+err.Error(), hintRestart)
	}
	return fmt.Errorf("%s: %s: %w", Name, what, err)
}
