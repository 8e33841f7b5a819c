package outer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/locald/locald/internal/network"
	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
)

// Check finds what no container can be made of.
func Check(spec runtime.Spec) error {
	image := spec.Image
	if image == nil || image.Name == "" {
		return Invalid("", "%s: no image", spec.ID())
	}
	for _, p := range image.Ports {
		if p.Container < 1 || p.Container > 65535 || p.Host < 1 || p.Host > 65535 {
			return Invalid("", "port %d:%d is not between 1 and 65535", p.Host, p.Container)
		}
	}
	for _, m := range image.Mounts {
		if !path.IsAbs(m.Target) {
			return Invalid("", "mount %s: %q is not an absolute path in the container", m.Source, m.Target)
		}
		if !filepath.IsAbs(m.Source) {
			continue
		}
		if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
			return Invalid("mkdir -p "+m.Source, "mount %s: there is no such file or directory on this host", m.Source)
		} else if err != nil {
			return Invalid("", "mount %s: %v", m.Source, err)
		}
	}
	return nil
}

// Invalid is an error that trying again cannot mend.
func Invalid(hint, format string, args ...any) error {
	return &runtime.Fault{Code: "config_invalid", Hint: hint, Err: fmt.Errorf(format, args...), Kind: runtime.ErrInvalid}
}

// Compose turns a spec and its image into what pid1 is told, but for Dir and for
// what the image's files are. Named volumes are made.
func (o Options) Compose(spec runtime.Spec, image *oci.Image) (pid1.Spec, error) {
	made := pid1.Spec{
		Args: command(spec, &image.Config), Workdir: workdir(spec, &image.Config), Hostname: spec.Service,
		Tmpfs: spec.Image.Tmpfs, ReadOnly: spec.Image.ReadOnly, HostNetwork: spec.Image.Host,
	}
	if len(made.Args) == 0 {
		return made, Invalid(`command = "…"`, "image %s names no command", spec.Image.Name)
	}
	asked := spec.Image.User
	if asked == "" {
		asked = image.Config.User
	}
	user, err := image.User(asked)
	if err != nil {
		return made, Invalid("", "user %q of image %s: %v", asked, spec.Image.Name, err)
	}
	made.User = pid1.User{UID: user.UID, GID: user.GID, Groups: user.Groups, Home: user.Home}
	for _, m := range spec.Image.Mounts {
		source := m.Source
		if !filepath.IsAbs(source) {
			if source, err = o.Volumes().Make(spec, m.Source); err != nil {
				return made, err
			}
		}
		made.Mounts = append(made.Mounts, pid1.Mount{Source: source, Target: m.Target, ReadOnly: m.ReadOnly, Fill: source != m.Source})
	}
	return made, o.connect(&made, spec)
}

// connect gives the container its network.
func (o Options) connect(made *pid1.Spec, spec runtime.Spec) error {
	if spec.Image.Host {
		made.Hosts = []pid1.HostsEntry{{Address: "127.0.0.1", Names: []string{network.HostName}}}
		return nil
	}
	c := network.Config{Name: spec.Service, Dir: filepath.Join(o.Dir, "networks", spec.Project.ID), Reach: spec.Image.Reach}
	for _, p := range spec.Image.Ports {
		c.Ports = append(c.Ports, network.Port{Host: p.Host, Container: p.Container})
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	made.Network, made.Address, made.Resolv = text, network.Address, network.ResolvConf()
	return nil
}

// command is what the container executes, as Docker puts it together: an
// entrypoint that is written replaces the image's, and its CMD too.
func command(spec runtime.Spec, image *dockerspec.DockerOCIImageConfig) []string {
	entrypoint, arguments := image.Entrypoint, image.Cmd
	if spec.Image.Entrypoint != nil {
		entrypoint, arguments = spec.Image.Entrypoint, nil
	}
	if len(spec.Command) > 0 {
		arguments = spec.Command
	}
	return slices.Concat(entrypoint, arguments)
}

// workdir is where the command begins; empty is /.
func workdir(spec runtime.Spec, image *dockerspec.DockerOCIImageConfig) string {
	if spec.Image.Workdir != "" {
		return path.Join("/", image.WorkingDir, spec.Image.Workdir)
	}
	return image.WorkingDir
}

// environment is the image's and then the spec's. Like every engine it sees to a
// PATH.
func environment(image *dockerspec.DockerOCIImageConfig, own []string) []string {
	all := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, v := range slices.Concat(image.Env, own) {
		name, _, _ := strings.Cut(v, "=")
		all = slices.DeleteFunc(all, func(before string) bool { return strings.HasPrefix(before, name+"=") })
		all = append(all, v)
	}
	return all
}

// argv is that of the process that makes the container.
func argv(program []string, made pid1.Spec) ([]string, error) {
	argument, err := made.Argument()
	if err != nil {
		return nil, Fault(runtime.Spec{}, err)
	}
	if len(program) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find locald's own file: %w", err)
		}
		program = []string{self}
	}
	return append(slices.Clone(program), "container", argument), nil
}

// Fault turns what pid1 says into the contract's.
func Fault(spec runtime.Spec, err error) error {
	var known *pid1.Error
	if !errors.As(err, &known) {
		return err
	}
	f := &runtime.Fault{Code: "internal", Hint: known.Hint, Err: known}
	switch known.Kind {
	case pid1.NotFound, pid1.NotExecutable:
		f.Code, f.Kind = "command_missing", runtime.ErrInvalid
	case pid1.WorkdirFailed:
		f.Code, f.Kind = "workdir_missing", runtime.ErrInvalid
	case pid1.Invalid, pid1.MountFailed:
		f.Code, f.Kind = "config_invalid", runtime.ErrInvalid
	case pid1.Forbidden:
		f.Code, f.Kind = "engine_unavailable", runtime.ErrUnavailable
	case pid1.PortTaken:
		f.Code = "port_taken"
		if port := takenOf(spec, known.Why); port != 0 {
			f.Hint = "ss -ltnp 'sport = :" + strconv.Itoa(port) + "'"
			f.Err = fmt.Errorf("port %d on 127.0.0.1 is taken", port)
		}
	}
	return f
}

// takenOf is the port of the spec that a complaint is about; 0 when it is about
// something else.
func takenOf(spec runtime.Spec, why string) int {
	if spec.Image == nil {
		return 0
	}
	for _, p := range spec.Image.Ports {
		if strings.Contains(why, "127.0.0.1:"+strconv.Itoa(p.Host)+":") {
			return p.Host
		}
	}
	return 0
}

// Unwritten is an error of writing what a container needs.
func Unwritten(err error) error {
	f := &runtime.Fault{Code: "internal", Err: fmt.Errorf("container: %w", err)}
	if errors.Is(err, fs.ErrPermission) {
		f.Code = "permission_denied"
	}
	return f
}
