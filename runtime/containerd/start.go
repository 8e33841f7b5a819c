package containerd

import (
	"context"
	"crypto/rand"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

// undoTime is how long a failed start may take to clean up. Sweep does it
// otherwise.
const undoTime = 20 * time.Second

// check finds what makes a spec impossible to start.
func check(spec runtime.Spec) error {
	if err := outer.Check(spec); err != nil {
		return err
	}
	if spec.Image.Build != nil {
		return runtime.NoBuilder(Name)
	}
	for key := range spec.Image.Labels {
		if strings.HasPrefix(key, labelPrefix) {
			return outer.Invalid("", "label %s: names that begin with %s are locald's own", key, labelPrefix)
		}
	}
	return nil
}

// Start creates and starts a container of its own for the run.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := check(spec); err != nil {
		return nil, err
	}
	e, err := r.watching(ctx)
	if err != nil {
		return nil, err
	}
	image, err := e.image(ctx, spec.Image.Name)
	if err != nil {
		return nil, err
	}
	if image == nil {
		return nil, absent(spec)
	}
	a := &attempt{r: r, e: e, spec: spec, image: image, id: containerID(spec)}
	in, err := a.run(ctx)
	if err == nil {
		return in, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	return nil, errors.Join(err, a.undo(undo))
}

// containerID is never used again, whatever becomes of the state directory.
func containerID(spec runtime.Spec) string {
	name := fmt.Sprintf("locald-%s-%s-%d", spec.Project.ID, spec.Service, spec.Run)
	const most = 76 - 1 - 8 // what containerd takes
	return name[:min(len(name), most)] + "-" + strings.ToLower(rand.Text()[:8])
}

// attempt is one start under way.
type attempt struct {
	r     *Runtime
	e     *engine
	spec  runtime.Spec
	image *image
	id    string
	outer *outer.Container // nil as long as there is none
}

func (a *attempt) run(ctx context.Context) (*instance, error) {
	program, err := a.program()
	if err != nil {
		return nil, err
	}
	// What has begun is brought to an end of which the outcome is known.
	work := context.WithoutCancel(ctx)
	rootfs, err := a.snapshot(work)
	if err != nil {
		return nil, err
	}
	made, err := a.compose(work, rootfs)
	if err != nil {
		return nil, err
	}
	network, err := a.beside(ctx, made)
	if err != nil {
		return nil, err
	}
	if err := a.record(work, made, network, program); err != nil {
		return nil, err
	}
	return a.begin(ctx, work, rootfs)
}

// program is the file of what is the first process in the container.
func (a *attempt) program() (string, error) {
	file := a.r.options.Init
	if file == "" {
		var err error
		if file, err = os.Executable(); err != nil {
			return "", fmt.Errorf("find locald's own file: %w", err)
		}
	}
	f, err := elf.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", &runtime.Fault{Code: "internal", Hint: "locald server restart", Err: fmt.Errorf("%s is gone: locald was replaced since it started", file)}
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return "", &runtime.Fault{
			Code: "internal", Hint: "CGO_ENABLED=0 go build",
			Err: fmt.Errorf("%s needs libraries, so that it cannot be the first process of a container", file),
		}
	}
	return file, nil
}

// snapshot makes what the container writes over its image.
func (a *attempt) snapshot(ctx context.Context) ([]mount.Mount, error) {
	own := a.labels()
	// Nothing refers to it before there is a container.
	own["containerd.io/gc.root"] = time.Now().UTC().Format(time.RFC3339)
	rootfs, err := a.e.SnapshotService(a.e.snapshotter).Prepare(ctx, a.id, a.image.chain, snapshots.WithLabels(own))
	return rootfs, a.e.fault(ctx, "snapshot of "+a.image.name, err)
}

func (a *attempt) labels() map[string]string {
	return map[string]string{
		labelInstance: string(a.spec.Owner), labelProject: a.spec.Project.Name, labelDir: a.spec.Project.Dir,
		labelService: a.spec.Service, labelRun: string(a.spec.ID()),
	}
}

// compose makes what the outer process is told. The image's user is looked up in
// its files.
func (a *attempt) compose(ctx context.Context, rootfs []mount.Mount) (made pid1.Spec, err error) {
	image := &oci.Image{Reference: a.spec.Image.Name, Config: a.image.config}
	look := func(layers []string) error {
		image.Layers = layers
		made, err = a.r.outer().Compose(a.spec, image)
		return err
	}
	if layers := layersOf(rootfs); layers != nil {
		err = look(layers)
	} else {
		err = mount.WithReadonlyTempMount(ctx, rootfs, func(root string) error { return look([]string{root}) })
	}
	made.Dir, made.Engine = a.r.At(a.spec.ID()), true
	made.Hide = []string{keeper.Variable, keeper.Groups} // its processes are found otherwise
	return made, err
}

// layersOf are the directories of a root file system, the top one first, if they
// can be read where they are.
func layersOf(rootfs []mount.Mount) []string {
	if len(rootfs) != 1 {
		return nil
	}
	switch rootfs[0].Type {
	case "bind":
		return []string{rootfs[0].Source}
	case "overlay":
		for _, option := range rootfs[0].Options {
			if lower, ok := strings.CutPrefix(option, "lowerdir="); ok {
				return strings.Split(lower, ":")
			}
		}
	}
	return nil
}

// beside starts the outer process, and waits until the container can join it.
// network is the path of a namespace, or empty.
func (a *attempt) beside(ctx context.Context, made pid1.Spec) (network string, err error) {
	made.Mounts = nil
	a.outer, err = a.r.outer().Start(ctx, a.spec, &a.image.config, made)
	if err != nil {
		return "", err
	}
	network, err = a.outer.Offered(ctx)
	return network, outer.Fault(a.spec, err)
}

// record has containerd write the container down.
func (a *attempt) record(ctx context.Context, made pid1.Spec, network, program string) error {
	spec, err := a.oci(made, network, program)
	if err != nil {
		return err
	}
	text, err := typeurl.MarshalAny(spec)
	if err != nil {
		return err
	}
	labels := maps.Clone(a.spec.Image.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, a.labels())
	if stop := a.stopSignal(); stop != "" {
		labels[labelStop] = stop
	}
	_, err = a.e.ContainerService().Create(ctx, containers.Container{
		ID: a.id, Labels: labels, Image: a.image.name, Runtime: containers.RuntimeInfo{Name: a.e.Runtime()},
		Spec: text, Snapshotter: a.e.snapshotter, SnapshotKey: a.id,
	})
	return a.e.fault(ctx, "create container", err)
}

func (a *attempt) stopSignal() string {
	if a.spec.StopSignal != "" {
		return a.spec.StopSignal
	}
	return a.image.config.StopSignal
}

// oci is what containerd's runtime is told.
func (a *attempt) oci(made pid1.Spec, network, program string) (*ocispec.Spec, error) {
	argv, guests := pid1.Guest(made.Dir, program)
	dir := made.Workdir
	if dir == "" {
		dir = "/"
	}
	options := []ocispec.SpecOpts{
		ocispec.WithProcessArgs(argv...), ocispec.WithEnv([]string{"GOMAXPROCS=2"}), // of our own program
		ocispec.WithProcessCwd(dir), ocispec.WithHostname(made.Hostname),
		ocispec.WithDefaultUnixDevices, ocispec.WithNewPrivileges, ocispec.WithoutRunMount,
		ocispec.WithMounts(mountsOf(append(made.Mounts, guests...), made.Tmpfs)), unlimited,
	}
	if network == "" {
		options = append(options, ocispec.WithHostNamespace(specs.NetworkNamespace))
	} else {
		options = append(options, ocispec.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: network}))
	}
	if made.ReadOnly {
		options = append(options, ocispec.WithRootFSReadonly())
	}
	if a.spec.Image.Memory > 0 {
		options = append(options, ocispec.WithMemoryLimit(uint64(a.spec.Image.Memory)))
	}
	if a.spec.Image.CPUs > 0 {
		const period = 100_000 // microseconds
		options = append(options, ocispec.WithCPUCFS(int64(a.spec.Image.CPUs*period), period))
	}
	options = append(options, seccomp.WithDefaultProfile()) // it goes by the capabilities
	ctx := namespaces.WithNamespace(context.Background(), Namespace)
	return ocispec.GenerateSpec(ctx, nil, &containers.Container{ID: a.id}, options...)
}

// unlimited takes away the limit of 1024 open files, which no other engine has.
func unlimited(_ context.Context, _ ocispec.Client, _ *containers.Container, s *ocispec.Spec) error {
	s.Process.Rlimits = nil
	return nil
}

// mountsOf are what a container has besides its image and what the kernel shows,
// outer directories first.
func mountsOf(binds []pid1.Mount, tmpfs []string) []specs.Mount {
	var all []specs.Mount
	for _, m := range binds {
		access := "rw"
		if m.ReadOnly {
			access = "ro"
		}
		all = append(all, specs.Mount{Type: "bind", Source: m.Source, Destination: m.Target, Options: []string{"rbind", "rprivate", access}})
	}
	for _, t := range tmpfs {
		target, more, _ := strings.Cut(t, ":")
		options := []string{"nosuid", "nodev", "noexec", "mode=1777"}
		if more != "" {
			options = append(options, strings.Split(more, ",")...)
		}
		all = append(all, specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: target, Options: options})
	}
	depth := func(m specs.Mount) int { return strings.Count(path.Clean(m.Destination), "/") }
	slices.SortStableFunc(all, func(a, b specs.Mount) int { return depth(a) - depth(b) })
	return all
}

// begin starts the container and returns once its main program is executed.
func (a *attempt) begin(ctx, work context.Context, rootfs []mount.Mount) (*instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	request := &tasks.CreateTaskRequest{ContainerID: a.id}
	for _, m := range rootfs {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	created, err := a.e.TaskService().Create(work, request)
	if err != nil {
		return nil, a.refused(work, err)
	}
	in, err := newInstance(a.r, a.e, a.id, a.spec, a.outer, int(created.Pid))
	if err != nil {
		return nil, err
	}
	if _, err := a.e.TaskService().Start(work, &tasks.StartRequest{ContainerID: a.id}); err != nil {
		return nil, a.refused(work, err)
	}
	if err := in.ready(ctx); err != nil {
		return nil, outer.Fault(a.spec, err)
	}
	in.Check(a.image.config.Healthcheck)
	a.r.track(in)
	return in, nil
}

// refused turns containerd's refusal to create or start into what helps.
func (a *attempt) refused(ctx context.Context, err error) error {
	if err = a.e.fault(ctx, "start "+a.spec.Image.Name, err); errors.Is(err, runtime.ErrUnavailable) {
		return err
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "error mounting"), strings.Contains(text, "mountpoint"), strings.Contains(text, "not a directory"),
		strings.Contains(text, "memory.limit_in_bytes"), strings.Contains(text, "memory.max"), strings.Contains(text, "cpu.cfs_quota_us"), strings.Contains(text, "cpu.max"):
		return outer.Invalid("", "%v", err)
	case strings.Contains(text, "no space left on device"):
		return &runtime.Fault{Code: "disk_full", Hint: "df -h " + filepath.Dir(a.e.address), Err: err}
	}
	return err
}

// undo takes back a start that has failed.
func (a *attempt) undo(ctx context.Context) error {
	var problems []error
	if a.outer != nil {
		problems = append(problems, a.outer.Abandon(ctx, a.spec, nil))
	}
	return errors.Join(append(problems, a.e.discard(ctx, a.id), pid1.Remove(a.r.At(a.spec.ID())))...)
}
