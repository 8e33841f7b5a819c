package remote

import (
	"context"
	"sync"

	"github.com/locald/locald/runtime"
)

// Containers is a runtime.Engine that the other process offers.
type Containers struct {
	*Runtime
	has func() *Peer // the connection that there is, or nil

	naming sync.Mutex
	engine string // its name, once that is known
}

// NewContainers is the engine of that name. has is the connection that there is; what
// can be told without one is told without.
func NewContainers(name string, dial Dial, has func() *Peer) *Containers {
	return &Containers{Runtime: New(name, runtime.Container, dial), has: has}
}

var (
	_ runtime.Engine      = (*Containers)(nil)
	_ runtime.ImageLister = (*Containers)(nil)
	_ runtime.ImagePruner = (*Containers)(nil)
)

// Ping is the contract's.
func (e *Containers) Ping(ctx context.Context) error { return tell(ctx, e.Runtime, methodPing, args{}) }

// Engine is the contract's. One that is known stays so.
func (e *Containers) Engine() string {
	e.naming.Lock()
	defer e.naming.Unlock()
	if e.engine != "" || e.has() == nil {
		return e.engine
	}
	ctx, cancel := context.WithTimeout(context.Background(), infoTime)
	defer cancel()
	e.engine, _ = ask[string](ctx, e.Runtime, methodEngine, args{}) // empty as long as nobody knows
	return e.engine
}

// At is the contract's.
func (e *Containers) At(run runtime.RunID) string {
	ctx, cancel := context.WithTimeout(context.Background(), infoTime)
	defer cancel()
	at, err := ask[string](ctx, e.Runtime, methodAt, args{Run: run})
	if err != nil {
		return ""
	}
	return at
}

// HasVolume is the contract's.
func (e *Containers) HasVolume(ctx context.Context, project, name string) (bool, error) {
	return ask[bool](ctx, e.Runtime, methodHasVolume, args{Project: project, Names: []string{name}})
}

// RemoveVolumes is the contract's.
func (e *Containers) RemoveVolumes(ctx context.Context, project, service string, names ...string) error {
	return tell(ctx, e.Runtime, methodRemoveVolumes, args{Project: project, Service: service, Names: names})
}

// Sweep is the contract's.
func (e *Containers) Sweep(ctx context.Context) error {
	return tell(ctx, e.Runtime, methodSweep, args{})
}

// Images is the contract's. It is errors.ErrUnsupported for an engine that cannot
// tell.
func (e *Containers) Images(ctx context.Context, names []string) ([]runtime.StoredImage, error) {
	return ask[[]runtime.StoredImage](ctx, e.Runtime, methodImages, args{Names: names})
}

// PruneImages is the contract's. It is errors.ErrUnsupported for an engine whose
// images are its own.
func (e *Containers) PruneImages(ctx context.Context, keep []string) ([]runtime.StoredImage, int64, error) {
	done, err := ask[pruned](ctx, e.Runtime, methodPruneImages, args{Names: keep})
	return done.Removed, done.Freed, err
}
