package builtin

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/runtime"
)

var (
	_ runtime.ImageLister = (*Runtime)(nil)
	_ runtime.ImagePruner = (*Runtime)(nil)
)

// Images returns all images of the store.
func (r *Runtime) Images(ctx context.Context, names []string) ([]runtime.StoredImage, error) {
	if _, err := os.Stat(r.imagesDir()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nothing was ever pulled
	}
	store, err := r.Store()
	if err != nil {
		return nil, r.imageFault(err)
	}
	all, err := store.List(ctx)
	if err != nil {
		return nil, r.imageFault(err)
	}
	var found []runtime.StoredImage
	for _, one := range all {
		if one.Complete {
			found = append(found, storedImage(one, names))
		}
	}
	return found, nil
}

// storedImage is what the store says of an image, with those of names that mean
// it.
func storedImage(one oci.Listed, names []string) runtime.StoredImage {
	image := runtime.StoredImage{Name: one.Name, Digest: one.Digest, Size: one.Size, Used: one.Used, Held: len(one.InUse) > 0}
	for _, name := range names {
		if full, err := oci.Reference(name); err == nil && full == one.Reference {
			image.As = append(image.As, name)
		}
	}
	return image
}

// PruneImages prunes the store.
func (r *Runtime) PruneImages(ctx context.Context, keep []string) (removed []runtime.StoredImage, freed int64, err error) {
	if _, err := os.Stat(r.imagesDir()); errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	store, err := r.Store()
	if err != nil {
		return nil, 0, r.imageFault(err)
	}
	freed, err = store.Prune(ctx, func(one oci.Listed) bool {
		kept := slices.ContainsFunc(keep, func(name string) bool {
			full, err := oci.Reference(name)
			return err == nil && full == one.Reference
		})
		if !kept {
			removed = append(removed, storedImage(one, nil))
		}
		return kept
	})
	return removed, freed, r.imageFault(err)
}
