package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// imageUse is a service of some project that is run from an image.
type imageUse struct {
	project.ImageUse
	told ipc.ImageUse
}

// imageUses is what every project on record is run from. The error names those
// of which that cannot be told; the others are returned all the same.
func (d *Daemon) imageUses(ctx context.Context) (all []imageUse, err error) {
	for _, p := range d.known() {
		if p.Title().UsedAt.IsZero() {
			continue // somebody looked, and nothing was ever wanted
		}
		name := d.name(p)
		uses, failed := p.ImageUses(ctx)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("which images %s uses cannot be told: %w", name.Label, failed))
		}
		for _, use := range uses {
			all = append(all, imageUse{use, ipc.ImageUse{Project: name.Label, Dir: name.Dir, Service: use.Service}})
		}
	}
	return all, err
}

// images lists what builtin keeps, and what projects use of other engines'.
func (d *Daemon) images(ctx context.Context, _ ipc.NoArgs) (ipc.Images, error) {
	answer := ipc.Images{Images: []ipc.Image{}, Notes: []string{}}
	uses, err := d.imageUses(ctx)
	if err != nil {
		answer.Notes = append(answer.Notes, err.Error())
	}
	byEngine := map[string][]imageUse{runtime.EngineBuiltin: nil}
	for _, use := range uses {
		byEngine[use.Engine] = append(byEngine[use.Engine], use)
	}
	for written, uses := range byEngine {
		rt := d.engine(written)
		lister, ok := rt.(runtime.ImageLister)
		if !ok {
			continue
		}
		found, err := lister.Images(ctx, namesOf(uses))
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			answer.Notes = append(answer.Notes, err.Error())
			continue
		}
		for _, image := range found {
			answer.Images = addImage(answer.Images, imageOf(rt.Engine(), image, uses))
		}
		if rt.Engine() != runtime.EngineBuiltin && len(found) > 0 {
			answer.Notes = append(answer.Notes, fmt.Sprintf("the images of %s are its own: %[1]s image prune", rt.Engine()))
		}
	}
	slices.Sort(answer.Notes)
	answer.Notes = slices.Compact(answer.Notes)
	slices.SortFunc(answer.Images, func(a, b ipc.Image) int {
		return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Name, b.Name))
	})
	return answer, nil
}

func namesOf(uses []imageUse) []string {
	var names []string
	for _, use := range uses {
		names = append(names, use.Image)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// imageOf is an image as clients see it, with those of uses that mean it.
func imageOf(engine string, image runtime.StoredImage, uses []imageUse) ipc.Image {
	out := ipc.Image{Name: image.Name, Digest: image.Digest, Size: image.Size, Engine: engine, Held: image.Held, UsedBy: []ipc.ImageUse{}}
	used := image.Used
	for _, use := range uses {
		if !slices.Contains(image.As, use.Image) {
			continue
		}
		out.UsedBy = append(out.UsedBy, use.told)
		if use.Last.After(used) {
			used = use.Last
		}
	}
	slices.SortFunc(out.UsedBy, func(a, b ipc.ImageUse) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.Service, b.Service))
	})
	out.UsedBy = slices.Compact(out.UsedBy)
	if !used.IsZero() {
		out.UsedAt = stamp(used.Truncate(time.Second))
	}
	return out
}

// addImage adds an image, or who uses it where an engine goes by two names.
func addImage(all []ipc.Image, image ipc.Image) []ipc.Image {
	for i, known := range all {
		if known.Engine == image.Engine && known.Name == image.Name {
			all[i].UsedBy = append(known.UsedBy, image.UsedBy...)
			all[i].UsedAt = max(known.UsedAt, image.UsedAt)
			return all
		}
	}
	return append(all, image)
}

// pruneImages removes what builtin keeps and no project uses. While it cannot be
// told what one uses nothing is removed.
func (d *Daemon) pruneImages(ctx context.Context, a ipc.PruneArgs) (ipc.Pruned, error) {
	var keep []string
	if !a.All {
		uses, err := d.imageUses(ctx)
		if err != nil {
			told := &ipc.Error{Code: ipc.CodeConfigInvalid, Message: "nothing is removed: " + err.Error(), Hint: "locald images prune --all"}
			return ipc.Pruned{}, told
		}
		keep = namesOf(uses)
	}
	answer := ipc.Pruned{Removed: []ipc.Image{}}
	own, ok := d.engine(runtime.EngineBuiltin).(runtime.ImagePruner)
	if !ok {
		return answer, nil
	}
	removed, freed, err := own.PruneImages(ctx, keep)
	answer.Freed = freed
	for _, image := range removed {
		answer.Removed = append(answer.Removed, imageOf(runtime.EngineBuiltin, image, nil))
	}
	return answer, fault(err)
}
