package builtin

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

// check finds what no container can be made of.
func check(spec runtime.Spec) error {
	if err := outer.Check(spec); err != nil {
		return err
	}
	if spec.Image.Build != nil {
		return runtime.NoBuilder(Name)
	}
	return nil
}

// mostProcesses is how many processes and threads a container can have where
// that can be limited: far more than any service needs, and few enough for a
// machine to live with a fork bomb.
const mostProcesses = 4096

func limits(image *runtime.Image) *runtime.Limits {
	return &runtime.Limits{Memory: image.Memory, CPUs: image.CPUs, PIDs: mostProcesses}
}

// usual is the user of a container whose image asks for root, where an ordinary
// user can have one user in it: programs that are told they are root want to
// become another, which they cannot.
const usual = 999

// container turns a spec into what pid1 makes.
func (r *Runtime) container(spec runtime.Spec, image *oci.Image, dir string) (pid1.Spec, error) {
	made, err := r.outer().Compose(spec, image)
	if err != nil {
		return made, err
	}
	made.Dir, made.Layers, made.UserXattr = dir, image.Layers, r.store.UserXattr()
	if made.Range, err = r.ranged(); err != nil {
		return made, unsupported(err)
	}
	if made.Range != nil && !made.Range.Has(made.User) {
		return made, outer.Invalid("cat /etc/subuid /etc/subgid", "user %d:%d of image %s is beyond the range of users that this machine gives you", made.User.UID, made.User.GID, spec.Image.Name)
	}
	if os.Geteuid() != 0 && made.Range == nil {
		if made.User.UID == 0 {
			made.User.UID, made.User.GID = usual, usual
		}
		made.User.Groups = nil
		made.MapUID, made.MapGID = made.User.UID, made.User.GID
	}
	made.Mounts = append(made.Mounts, anonymous(spec.Image, image, dir)...)
	return made, nil
}

// anonymous are the volumes that the image wants and the spec does not mount:
// directories of the container, which end with it.
func anonymous(asked *runtime.Image, image *oci.Image, dir string) (mounts []pid1.Mount) {
	taken := map[string]bool{"/": true}
	for _, m := range asked.Mounts {
		taken[path.Clean(m.Target)] = true
	}
	for _, t := range asked.Tmpfs {
		target, _, _ := strings.Cut(t, ":")
		taken[path.Clean(target)] = true
	}
	for _, target := range slices.Sorted(maps.Keys(image.Config.Volumes)) {
		target = path.Join("/", target)
		if !taken[target] {
			taken[target] = true
			source := filepath.Join(dir, "volumes", strconv.Itoa(len(mounts)))
			mounts = append(mounts, pid1.Mount{Source: source, Target: target, Fill: true})
		}
	}
	return mounts
}

// unsupported is pid1's reason as that of an engine that is not there.
func unsupported(err error) error {
	if err == nil {
		return nil
	}
	f := &runtime.Fault{Code: "engine_unavailable", Err: fmt.Errorf("builtin engine: %w", err), Kind: runtime.ErrUnavailable}
	var known *pid1.Error
	if errors.As(err, &known) {
		f.Hint = known.Hint
	}
	return f
}
