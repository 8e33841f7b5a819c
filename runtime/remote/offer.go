package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/locald/locald/runtime"
)

// Offer lets the other end of p use runtimes. find names them; it is asked with
// every call, and may make one when it is first asked for.
func Offer(p *Peer, find func(name string) (runtime.Runtime, error)) {
	o := &offer{find: find, live: map[runtime.Ref]runtime.Instance{}}
	HandleReports(p, methodPrepare, func(ctx context.Context, a args, report func(any)) (struct{}, error) {
		rt, err := find(a.Runtime)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, rt.Prepare(ctx, a.Spec.unpack(), func(p runtime.Progress) { report(p) })
	})
	Handle(p, methodStart, func(ctx context.Context, a args) (started, error) {
		rt, err := find(a.Runtime)
		if err != nil {
			return started{}, err
		}
		in, err := rt.Start(ctx, a.Spec.unpack())
		return o.hold(in, err)
	})
	Handle(p, methodAttach, func(ctx context.Context, a args) (started, error) {
		in, err := o.attach(ctx, a)
		return o.hold(in, err)
	})
	Handle(p, methodList, func(ctx context.Context, a args) ([]runtime.Ref, error) {
		rt, err := find(a.Runtime)
		if err != nil {
			return nil, err
		}
		return rt.List(ctx, a.Owner)
	})
	o.instances(p)
	o.optional(p)
	o.engines(p)
}

type offer struct {
	find func(string) (runtime.Runtime, error)

	mu   sync.Mutex
	live map[runtime.Ref]runtime.Instance // until they are removed
}

// hold keeps an instance under its ref until it is removed.
func (o *offer) hold(in runtime.Instance, err error) (started, error) {
	if err != nil {
		return started{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.live[in.Ref()] = in
	return started{Ref: in.Ref(), Info: in.Info(), Can: abilitiesOf(in)}, nil
}

func (o *offer) attach(ctx context.Context, a args) (runtime.Instance, error) {
	rt, err := o.find(a.Runtime)
	if err != nil {
		return nil, err
	}
	return rt.Attach(ctx, a.Ref)
}

// instance is the one that a call is for.
func (o *offer) instance(ctx context.Context, a args) (runtime.Instance, error) {
	o.mu.Lock()
	in := o.live[a.Ref]
	o.mu.Unlock()
	if in != nil {
		return in, nil
	}
	in, err := o.attach(ctx, a)
	if err != nil {
		return nil, err
	}
	_, err = o.hold(in, nil) // once it has ended only this can still remove it
	return in, err
}

// instances answers the methods that every instance has.
func (o *offer) instances(p *Peer) {
	Handle(p, methodInfo, func(ctx context.Context, a args) (runtime.Info, error) {
		in, err := o.instance(ctx, a)
		if err != nil {
			return runtime.Info{}, err
		}
		return in.Info(), nil
	})
	Handle(p, methodWait, func(ctx context.Context, a args) (runtime.Exit, error) {
		in, err := o.instance(ctx, a)
		if err != nil {
			return runtime.Exit{}, err
		}
		return in.Wait(ctx)
	})
	Handle(p, methodStop, func(ctx context.Context, a args) (struct{}, error) {
		in, err := o.instance(ctx, a)
		if errors.Is(err, runtime.ErrGone) {
			return struct{}{}, nil
		}
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, in.Stop(ctx, a.Grace)
	})
	Handle(p, methodRemove, func(ctx context.Context, a args) (struct{}, error) {
		in, err := o.instance(ctx, a)
		if errors.Is(err, runtime.ErrGone) {
			return struct{}{}, nil
		}
		if err != nil {
			return struct{}{}, err
		}
		if err := in.Remove(ctx); err != nil {
			return struct{}{}, err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.live, a.Ref)
		return struct{}{}, nil
	})
}

// able is the instance that a call is for as one that can do T.
func able[T any](ctx context.Context, o *offer, a args) (T, error) {
	var none T
	in, err := o.instance(ctx, a)
	if err != nil {
		return none, err
	}
	can, ok := in.(T)
	if !ok {
		return none, fmt.Errorf("%s: %w", a.Runtime, errors.ErrUnsupported)
	}
	return can, nil
}

// optional answers the methods that an instance may have.
func (o *offer) optional(p *Peer) {
	Handle(p, methodExec, func(ctx context.Context, a args) (executed, error) {
		in, err := able[runtime.Execer](ctx, o, a)
		if err != nil {
			return executed{}, err
		}
		exit, output, err := in.Exec(ctx, a.Names)
		return executed{exit, output}, err
	})
	HandleReports(p, methodHealth, func(ctx context.Context, a args, report func(any)) (struct{}, error) {
		in, err := able[runtime.HealthReporter](ctx, o, a)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, in.Health(ctx, func(h runtime.Health) { report(h) })
	})
	HandleReports(p, methodPaused, func(ctx context.Context, a args, report func(any)) (struct{}, error) {
		in, err := able[runtime.Pauser](ctx, o, a)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, in.Paused(ctx, func(paused bool) { report(paused) })
	})
}

// part is a runtime as T, which it need not be.
func part[T any](o *offer, a args) (T, error) {
	var none T
	rt, err := o.find(a.Runtime)
	if err != nil {
		return none, err
	}
	can, ok := rt.(T)
	if !ok {
		return none, fmt.Errorf("%s: %w", a.Runtime, errors.ErrUnsupported)
	}
	return can, nil
}

// engines answers the methods of a runtime.Engine.
func (o *offer) engines(p *Peer) {
	Handle(p, methodPing, func(ctx context.Context, a args) (struct{}, error) {
		e, err := part[runtime.Engine](o, a)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, e.Ping(ctx)
	})
	Handle(p, methodEngine, func(_ context.Context, a args) (string, error) {
		e, err := part[runtime.Engine](o, a)
		if err != nil {
			return "", err
		}
		return e.Engine(), nil
	})
	Handle(p, methodAt, func(_ context.Context, a args) (string, error) {
		e, err := part[runtime.Engine](o, a)
		if err != nil {
			return "", err
		}
		return e.At(a.Run), nil
	})
	Handle(p, methodHasVolume, func(ctx context.Context, a args) (bool, error) {
		e, err := part[runtime.Engine](o, a)
		if err != nil {
			return false, err
		}
		return e.HasVolume(ctx, a.Project, a.Names[0])
	})
	Handle(p, methodRemoveVolumes, func(ctx context.Context, a args) (struct{}, error) {
		e, err := part[runtime.Engine](o, a)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, e.RemoveVolumes(ctx, a.Project, a.Service, a.Names...)
	})
	Handle(p, methodSweep, func(ctx context.Context, a args) (struct{}, error) {
		e, err := part[runtime.Engine](o, a)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, e.Sweep(ctx)
	})
	Handle(p, methodImages, func(ctx context.Context, a args) ([]runtime.StoredImage, error) {
		lister, err := part[runtime.ImageLister](o, a)
		if err != nil {
			return nil, err
		}
		return lister.Images(ctx, a.Names)
	})
	Handle(p, methodPruneImages, func(ctx context.Context, a args) (pruned, error) {
		pruner, err := part[runtime.ImagePruner](o, a)
		if err != nil {
			return pruned{}, err
		}
		removed, freed, err := pruner.PruneImages(ctx, a.Names)
		return pruned{removed, freed}, err
	})
}
