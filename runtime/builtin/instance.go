package builtin

import (
	"context"
	"errors"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

// instance is a container: a process that stands for it, and its directory.
type instance struct {
	*outer.Container
	r *Runtime
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

// Remove deletes what the container has written, and lets go of its image.
func (in *instance) Remove(ctx context.Context) error {
	err := in.Container.Remove(ctx)
	run := in.Main().Ref().Run
	in.r.mu.Lock()
	delete(in.r.live, run)
	in.r.mu.Unlock()
	return errors.Join(err, in.r.discard(run))
}
