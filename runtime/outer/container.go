package outer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
)

// Options say where containers keep things, and what runs their processes.
type Options struct {
	Dir     string          // of the state
	Process runtime.Runtime // runs the outer processes, and says whose they are
	Program []string        // argv of a locald; empty is this program
	Folder  string          // within Dir: that of the containers' own directories
	Limits  *runtime.Limits // of what the outer process starts; nil: it starts nothing, or has none
}

// Volumes are the named volumes.
func (o Options) Volumes() Volumes { return Volumes{o.Dir} }

// DirOf is the directory of a container.
func (o Options) DirOf(id runtime.RunID) string {
	project, service, run, ok := id.Split()
	if !ok {
		return filepath.Join(o.Dir, o.Folder, "unknown")
	}
	return filepath.Join(o.Dir, o.Folder, project, fmt.Sprintf("%s-%d", service, run))
}

// Container is one that an outer process stands for.
type Container struct {
	main runtime.Instance
	dir  string
	life context.Context
	end  context.CancelFunc

	mu      sync.Mutex
	checked bool // the image brings a health check
	health  runtime.Health
	turned  chan struct{} // closed and replaced when health changes
}

var (
	_ runtime.Execer         = (*Container)(nil)
	_ runtime.HealthReporter = (*Container)(nil)
)

// New is the container in dir for which a process stands.
func New(main runtime.Instance, dir string) *Container {
	c := &Container{main: main, dir: dir, turned: make(chan struct{})}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// Start runs the outer process of what made says. The container begins after
// Ready.
func (o Options) Start(ctx context.Context, spec runtime.Spec, image *dockerspec.DockerOCIImageConfig, made pid1.Spec) (*Container, error) {
	if err := os.MkdirAll(made.Dir, 0o700); err != nil {
		return nil, Unwritten(err)
	}
	command, err := argv(o.Program, made)
	if err != nil {
		return nil, err
	}
	outer := spec
	outer.Image, outer.Command, outer.Dir = nil, command, "/"
	outer.Env, outer.Limits = environment(image, spec.Env), o.Limits
	if outer.StopSignal == "" {
		outer.StopSignal = image.StopSignal
	}
	main, err := o.Process.Start(ctx, outer)
	if err != nil {
		return nil, err
	}
	return New(main, made.Dir), nil
}

// Abandon ends a container whose start has failed, and returns why. Whatever
// there is of it ends, also when nobody waits any more.
func (c *Container) Abandon(ctx context.Context, spec runtime.Spec, why error) error {
	ctx = context.WithoutCancel(ctx)
	return errors.Join(Fault(spec, why), c.main.Stop(ctx, 0), c.main.Remove(ctx))
}

// Ready returns once the main program is executed, or says why it is not.
func (c *Container) Ready(ctx context.Context) error { return c.told(ctx, pid1.Ready) }

// Offered returns once the outer process waits for the engine to make the
// container in the network namespace at the path, or says why it does not. Without
// a path it is the host's.
func (c *Container) Offered(ctx context.Context) (network string, err error) {
	err = c.told(ctx, func(ctx context.Context, dir string) error {
		var err error
		network, err = pid1.Offered(ctx, dir)
		return err
	})
	return network, err
}

// told asks what the outer process tells, as long as there is one.
func (c *Container) told(ctx context.Context, ask func(context.Context, string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, err := c.main.Wait(ctx); err == nil {
			cancel()
		}
	}()
	err := ask(ctx, c.dir)
	if err != nil && ctx.Err() != nil {
		select {
		case <-ended: // it may have said why it ended
			done, over := context.WithCancel(context.Background())
			over()
			if last := ask(done, c.dir); last == nil || !errors.Is(last, context.Canceled) {
				return last
			}
		default:
		}
	}
	return err
}

// Main is the outer process.
func (c *Container) Main() runtime.Instance { return c.main }

// Info has an ID that is made of the run's, as long as those of engines.
func (c *Container) Info(engine string) runtime.Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	ref := c.main.Ref()
	sum := sha256.Sum256([]byte(string(ref.Run) + " " + ref.ID))
	return runtime.Info{PID: c.main.Info().PID, ContainerID: hex.EncodeToString(sum[:]), Engine: engine, Healthcheck: c.checked}
}

// Wait waits for the process, which ends as the container's main program did.
func (c *Container) Wait(ctx context.Context) (runtime.Exit, error) {
	exit, err := c.main.Wait(ctx)
	if err != nil {
		return exit, err
	}
	c.end()
	switch {
	case !exit.Known:
	case exit.Signal == "":
		exit.Signal = Exit(exit.Code, exit.At).Signal
	case exit.Reason == "": // the program's own end would be a code
		exit.Reason = "the process that stands for it was killed"
	}
	return exit, nil
}

// Exit reads an exit code as a shell does: above 128 it is a signal's.
func Exit(code int, at time.Time) runtime.Exit {
	exit := runtime.Exit{Known: true, Code: code, At: at}
	if code > 128 && code < 160 {
		exit.Signal = unix.SignalName(syscall.Signal(code - 128))
	}
	return exit
}

// Stop stops the process, which hands on the signal.
func (c *Container) Stop(ctx context.Context, grace time.Duration) error {
	err := c.main.Stop(ctx, grace)
	if err == nil {
		c.end()
	}
	return err
}

// Remove lets go of the process. The directory stays.
func (c *Container) Remove(ctx context.Context) error {
	c.end()
	return c.main.Remove(ctx)
}

// outputLimit is how much of an Exec's output is kept.
const outputLimit = 64 << 10

// Exec runs a command in the container. It is killed when ctx ends.
func (c *Container) Exec(ctx context.Context, command []string) (runtime.Exit, []byte, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return runtime.Exit{}, nil, err
	}
	defer read.Close()
	running, err := pid1.Exec(ctx, c.dir, pid1.Command{Args: command, Stdout: write, Stderr: write})
	_ = write.Close()
	if err != nil {
		if pid1.IsKind(err, pid1.Gone) {
			err = runtime.ErrGone
		}
		return runtime.Exit{}, nil, Fault(runtime.Spec{}, err)
	}
	output := make(chan []byte, 1)
	go func() {
		kept, _ := io.ReadAll(io.LimitReader(read, outputLimit))
		_, _ = io.Copy(io.Discard, read)
		output <- kept
	}()
	code, err := running.Wait()
	if ctx.Err() != nil {
		return runtime.Exit{}, nil, ctx.Err()
	}
	if err != nil {
		return runtime.Exit{}, nil, runtime.ErrGone
	}
	return runtime.Exit{Known: true, Code: code, At: time.Now()}, <-output, nil
}
