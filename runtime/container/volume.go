package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

func volumeName(projectID, name string) string { return "locald-" + projectID + "-" + name }

// makeVolumes creates the named volumes of a spec that are not there yet.
func (e *engine) makeVolumes(ctx context.Context, spec runtime.Spec) error {
	for _, m := range spec.Image.Mounts {
		if filepath.IsAbs(m.Source) {
			continue
		}
		if err := e.makeVolume(ctx, spec, m.Source); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) makeVolume(ctx context.Context, spec runtime.Spec, name string) error {
	ctx, done := e.watched(ctx)
	defer done()
	full := volumeName(spec.Project.ID, name)
	made, err := e.cli.VolumeCreate(ctx, client.VolumeCreateOptions{Name: full, Labels: map[string]string{
		labelInstance: string(spec.Owner), labelProject: spec.Project.Name, labelDir: spec.Project.Dir,
		labelService: spec.Service, labelVolume: name,
	}})
	if e.conflict(err) { // Podman says so of one that exists
		var found client.VolumeInspectResult
		found, err = e.cli.VolumeInspect(ctx, full, client.VolumeInspectOptions{})
		made.Volume = found.Volume
	}
	if err != nil {
		return e.fault(ctx, "volume "+name, err)
	}
	if owner := made.Volume.Labels[labelInstance]; owner != string(spec.Owner) {
		return foreign("volume", full, owner, e.name+" volume rm "+full+", which deletes its data")
	}
	return nil
}

// HasVolume reports whether the project has a volume of that name (as written
// in the configuration) in the engine.
func (r *Runtime) HasVolume(ctx context.Context, projectID, name string) (bool, error) {
	e, err := r.connect(ctx)
	if err != nil {
		return false, err
	}
	ctx, done := e.watched(ctx)
	defer done()
	found, err := e.cli.VolumeInspect(ctx, volumeName(projectID, name), client.VolumeInspectOptions{})
	if e.notFound(err) {
		return false, nil
	}
	return err == nil && found.Volume.Labels[labelInstance] == string(r.options.Owner), e.fault(ctx, "volume "+name, err)
}

// RemoveVolumes deletes volumes of the project, data and all: those that are
// named, and without names all that were made for service. Only the owner's
// own are deleted; those that are not there are deleted. A volume that a
// container uses is an error.
func (r *Runtime) RemoveVolumes(ctx context.Context, projectID, service string, names ...string) error {
	e, err := r.connect(ctx)
	if err != nil {
		return err
	}
	call, done := e.watched(ctx)
	defer done()
	mine := make(client.Filters).Add("label", labelInstance+"="+string(r.options.Owner))
	found, err := e.cli.VolumeList(call, client.VolumeListOptions{Filters: mine})
	if err != nil {
		return e.fault(call, "list volumes", err)
	}
	var problems []error
	for _, v := range found.Items {
		name := v.Labels[labelVolume]
		wanted := len(names) == 0 && v.Labels[labelService] == service || slices.Contains(names, name)
		if !wanted || v.Name != volumeName(projectID, name) {
			continue
		}
		_, err := e.cli.VolumeRemove(call, v.Name, client.VolumeRemoveOptions{})
		switch {
		case err == nil || e.notFound(err):
		case e.conflict(err):
			problems = append(problems, &runtime.Fault{Code: "stop_failed", Hint: e.name + " ps -a --filter volume=" + v.Name, Err: fmt.Errorf("volume %s is in use by a container", v.Name)})
		default:
			problems = append(problems, e.fault(call, "remove volume "+v.Name, err))
		}
	}
	return errors.Join(problems...)
}
