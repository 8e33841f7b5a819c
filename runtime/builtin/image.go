package builtin

import (
	"context"
	"fmt"

	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

// image is the spec's image, pulled as the spec says.
func (r *Runtime) image(ctx context.Context, spec runtime.Spec, report func(runtime.Progress)) (*oci.Image, error) {
	store, err := r.Store()
	if err != nil {
		return nil, r.imageFault(err)
	}
	name := spec.Image.Name
	if spec.Image.Pull != runtime.PullAlways {
		image, err := store.Image(name)
		if err == nil || !oci.IsKind(err, oci.NotFound) {
			return image, r.imageFault(err)
		}
		if spec.Image.Pull == runtime.PullNever {
			return nil, &runtime.Fault{Code: "image_pull", Hint: "--pull missing", Err: fmt.Errorf("image %s is not on this machine", name)}
		}
	}
	image, err := r.pulls.Join(ctx, name, report, func(ctx context.Context, layers *runtime.Layers) (*oci.Image, error) {
		return store.Pull(ctx, name, oci.PullOptions{Report: func(p oci.Progress) { told(layers, p) }})
	})
	return image, r.imageFault(err)
}

// told passes on what the store says.
func told(l *runtime.Layers, p oci.Progress) {
	switch p.Phase {
	case oci.Retrying:
		l.Retry(p.Layer, p.Reason)
	case oci.Unpacking, oci.Verifying:
		l.Set(p.Layer, runtime.Unpacking, 0, 0)
	default:
		l.Set(p.Layer, runtime.Phase(p.Phase), p.Current, p.Total)
	}
}

// imageFault turns what the store says into the contract's.
func (r *Runtime) imageFault(err error) error {
	return outer.ImageFault(err, "locald images prune, and df -h "+r.imagesDir())
}
