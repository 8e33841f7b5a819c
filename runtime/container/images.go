package container

import (
	"context"
	"strings"

	"github.com/distribution/reference"

	"github.com/locald/locald/runtime"
)

var _ runtime.ImageLister = (*Runtime)(nil)

// Images returns those of the named images that the engine has.
func (r *Runtime) Images(ctx context.Context, names []string) ([]runtime.StoredImage, error) {
	e, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	var found []runtime.StoredImage
	at := map[string]int{} // by name
	for _, name := range names {
		image, err := e.stored(ctx, name)
		if err != nil {
			return nil, err
		}
		if image == nil {
			continue
		}
		i, again := at[image.Name]
		if !again {
			i, at[image.Name] = len(found), len(found)
			found = append(found, *image)
		}
		found[i].As = append(found[i].As, name)
	}
	return found, nil
}

// stored is an image that the engine has, nil when it has not.
func (e *engine) stored(ctx context.Context, name string) (*runtime.StoredImage, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, nil //nolint:nilerr // there can be none of that name
	}
	ctx, done := e.watched(ctx)
	defer done()
	found, err := e.cli.ImageInspect(ctx, name)
	switch {
	case e.notFound(err):
		return nil, nil
	case err != nil:
		return nil, e.fault(ctx, "image "+name, err)
	}
	image := &runtime.StoredImage{Name: reference.FamiliarString(reference.TagNameOnly(named)), Digest: found.ID, Size: found.Size}
	for _, known := range found.RepoDigests {
		repository, digest, _ := strings.Cut(known, "@")
		if repository == reference.FamiliarName(named) {
			image.Digest = digest
		}
	}
	return image, nil
}
