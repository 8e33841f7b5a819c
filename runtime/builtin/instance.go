package builtin

import (
	"context"
	"errors"
	"sync"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

// instance is a container: a process that stands for it, and its directory.
type instance struct {
	*outer.Container
	r       *Runtime
	unwatch func() // nobody is to look at the directory any more

	mu      sync.Mutex
	over    bool // it has ended, or is to
	removed bool // somebody else has its directory
}

var _ runtime.Instance = (*instance)(nil)

// Ref is that of the process, of the kind of containers.
func (in *instance) Ref() runtime.Ref {
	ref := in.Main().Ref()
	ref.Kind = runtime.Container
	return ref
}

// Info has the process that stands for the container.
func (in *instance) Info() runtime.Info { return in.Container.Info(Name) }

// Wait waits for the process, which ends as the container's main program did.
func (in *instance) Wait(ctx context.Context) (runtime.Exit, error) {
	exit, err := in.Container.Wait(ctx)
	if err != nil {
		return exit, err
	}
	in.leave()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.removed {
		exit.Reason = "removed by someone else"
	}
	return exit, nil
}

// leave lets go of the directory.
func (in *instance) leave() {
	in.mu.Lock()
	in.over = true
	in.mu.Unlock()
	in.unwatch()
}

// vanished ends a container whose directory somebody else has removed: what it
// writes is lost, and no command gets to it.
func (in *instance) vanished() {
	in.mu.Lock()
	in.removed = !in.over
	end := in.removed
	in.mu.Unlock()
	if end {
		_ = in.Stop(context.Background(), 0) // who waits is told how it ended
	}
}

// Remove deletes what the container has written, and lets go of its image.
func (in *instance) Remove(ctx context.Context) error {
	in.leave()
	err := in.Container.Remove(ctx)
	run := in.Main().Ref().Run
	in.r.mu.Lock()
	delete(in.r.live, run)
	in.r.mu.Unlock()
	return errors.Join(err, in.r.discard(run))
}
