package builtin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
)

// instance is a container: a process that stands for it, and its directory.
type instance struct {
	r    *Runtime
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
	_ runtime.Instance       = (*instance)(nil)
	_ runtime.Execer         = (*instance)(nil)
	_ runtime.HealthReporter = (*instance)(nil)
)

func newInstance(r *Runtime, main runtime.Instance, dir string) *instance {
	in := &instance{r: r, main: main, dir: dir, turned: make(chan struct{})}
	in.life, in.end = context.WithCancel(context.Background())
	return in
}

// Ref is that of the process, of the kind of containers.
func (in *instance) Ref() runtime.Ref {
	ref := in.main.Ref()
	ref.Kind = runtime.Container
	return ref
}

// Info has an ID that is made of the run's, as long as those of engines.
func (in *instance) Info() runtime.Info {
	in.mu.Lock()
	defer in.mu.Unlock()
	ref := in.main.Ref()
	sum := sha256.Sum256([]byte(string(ref.Run) + " " + ref.ID))
	return runtime.Info{PID: in.main.Info().PID, ContainerID: hex.EncodeToString(sum[:]), Engine: Name, Healthcheck: in.checked}
}

// Wait waits for the process, which ends as the container's main program did.
func (in *instance) Wait(ctx context.Context) (runtime.Exit, error) {
	exit, err := in.main.Wait(ctx)
	if err != nil {
		return exit, err
	}
	in.end()
	if exit.Known && exit.Signal == "" && exit.Code > 128 && exit.Code < 160 {
		exit.Signal = unix.SignalName(syscall.Signal(exit.Code - 128))
	}
	return exit, nil
}

// Stop stops the process, which hands on the signal.
func (in *instance) Stop(ctx context.Context, grace time.Duration) error {
	err := in.main.Stop(ctx, grace)
	if err == nil {
		in.end()
	}
	return err
}

// Remove deletes what the container has written, and lets go of its image.
func (in *instance) Remove(ctx context.Context) error {
	in.end()
	err := in.main.Remove(ctx)
	in.r.mu.Lock()
	delete(in.r.live, in.main.Ref().Run)
	in.r.mu.Unlock()
	return errors.Join(err, in.r.discard(in.main.Ref().Run))
}

// outputLimit is how much of an Exec's output is kept.
const outputLimit = 64 << 10

// Exec runs a command in the container. It is killed when ctx ends.
func (in *instance) Exec(ctx context.Context, command []string) (runtime.Exit, []byte, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return runtime.Exit{}, nil, err
	}
	defer read.Close()
	running, err := pid1.Exec(ctx, in.dir, pid1.Command{Args: command, Stdout: write, Stderr: write})
	_ = write.Close()
	if err != nil {
		if pid1.IsKind(err, pid1.Gone) {
			err = runtime.ErrGone
		}
		return runtime.Exit{}, nil, containerFault(runtime.Spec{}, err)
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
