package builtin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/runtime"
)

// image is the spec's image, pulled as the spec says.
func (r *Runtime) image(ctx context.Context, spec runtime.Spec, report func(runtime.Progress)) (*oci.Image, error) {
	store, err := r.Store()
	if err != nil {
		return nil, imageFault(err)
	}
	name := spec.Image.Name
	if spec.Image.Pull != runtime.PullAlways {
		image, err := store.Image(name)
		if err == nil || !oci.IsKind(err, oci.NotFound) {
			return image, imageFault(err)
		}
		if spec.Image.Pull == runtime.PullNever {
			return nil, &runtime.Fault{Code: "image_pull", Hint: "--pull missing", Err: fmt.Errorf("image %s is not on this machine", name)}
		}
	}
	p := pull{image: name, report: report, layers: map[string]oci.Progress{}}
	report(runtime.Progress{Step: p.step("")})
	image, err := store.Pull(ctx, name, oci.PullOptions{Report: p.told})
	return image, imageFault(err)
}

// pull adds up how far the layers of an image have come.
type pull struct {
	image  string
	report func(runtime.Progress)
	layers map[string]oci.Progress
	last   time.Time
}

func (p *pull) step(why string) string {
	if why == "" {
		return "pulling " + p.image
	}
	return fmt.Sprintf("pulling %s: %s; trying again", p.image, why)
}

// told is called by one goroutine at a time. Bytes are reported ten times a
// second at most, and a reason at once.
func (p *pull) told(now oci.Progress) {
	p.layers[now.Layer] = now
	sum := runtime.Progress{Step: p.step(now.Reason)}
	for _, l := range p.layers {
		sum.Current += l.Current
		sum.Total += l.Total
	}
	const interval = time.Second / 10
	if now.Reason == "" && sum.Current < sum.Total && time.Since(p.last) < interval {
		return
	}
	p.last = time.Now()
	p.report(sum)
}

// imageFault turns what the store says into the contract's.
func imageFault(err error) error {
	var known *oci.Error
	if !errors.As(err, &known) {
		return err
	}
	f := &runtime.Fault{Code: "image_pull", Hint: known.Hint, Err: known}
	switch known.Kind {
	case oci.InvalidReference:
		f.Code, f.Kind = "config_invalid", runtime.ErrInvalid
	case oci.DiskFull:
		f.Code = "disk_full"
	case oci.Storage:
		f.Code = "internal"
	}
	return f
}
