package container

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// check finds what makes a spec impossible to start on any engine.
func check(spec runtime.Spec) error {
	if spec.Image == nil || spec.Image.Name == "" {
		return invalid("", "", "%s: no image", spec.ID())
	}
	for _, p := range spec.Image.Ports {
		if p.Container < 1 || p.Container > 65535 || p.Host < 0 || p.Host > 65535 {
			return invalid("config_invalid", "", "%s: port %d:%d is not between 1 and 65535", spec.ID(), p.Host, p.Container)
		}
	}
	for key := range spec.Image.Labels {
		if strings.HasPrefix(key, labelPrefix) {
			return invalid("config_invalid", "", "%s: label %s: names that begin with %s are locald's own", spec.ID(), key, labelPrefix)
		}
	}
	for _, m := range spec.Image.Mounts {
		if !path.IsAbs(m.Target) {
			return invalid("config_invalid", "", "%s: mount %s: %q is not an absolute path in the container", spec.ID(), m.Source, m.Target)
		}
	}
	return nil
}

// invalid is an error that trying again cannot mend.
func invalid(code, hint, format string, values ...any) error {
	return &runtime.Fault{Code: cmp.Or(code, "config_invalid"), Hint: hint, Err: kind{fmt.Sprintf(format, values...), runtime.ErrInvalid}}
}

// checkBinds looks at the host paths that a spec mounts. home is the address
// of the engine itself.
func checkBinds(spec runtime.Spec, home string) error {
	for _, m := range spec.Image.Mounts {
		if !filepath.IsAbs(m.Source) {
			continue
		}
		real, err := filepath.EvalSymlinks(m.Source)
		if errors.Is(err, fs.ErrNotExist) {
			return invalid("config_invalid", "mkdir -p "+m.Source, "mount %s: there is no such file or directory on this host", m.Source)
		}
		if err != nil {
			return invalid("config_invalid", "", "mount %s: %v", m.Source, err)
		}
		if socket := engineSocket(real, home); socket != "" && !spec.Image.Engine {
			return invalid("permission_denied", "", "mount %s: it would give the container the engine's socket %s, and with it this whole machine; locald does not do that",
				m.Source, socket)
		}
	}
	return nil
}

// engineSocket returns the socket of an engine that dir is or contains.
func engineSocket(real, home string) string {
	sockets := []string{"/var/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock"}
	if path, ok := strings.CutPrefix(home, "unix://"); ok {
		sockets = append(sockets, path)
	}
	for _, socket := range sockets {
		target, err := filepath.EvalSymlinks(socket)
		if err != nil {
			continue
		}
		if inside, err := filepath.Rel(real, target); err == nil && !strings.HasPrefix(inside, "..") {
			return socket
		}
	}
	stat, err := os.Stat(real)
	if err == nil && stat.Mode()&fs.ModeSocket != 0 {
		switch filepath.Base(real) {
		case "docker.sock", "podman.sock", "containerd.sock", "crio.sock":
			return real
		}
	}
	return ""
}

func labels(spec runtime.Spec) map[string]string {
	all := map[string]string{
		labelInstance: string(spec.Owner),
		labelProject:  spec.Project.Name,
		labelDir:      spec.Project.Dir,
		labelService:  spec.Service,
		labelRun:      string(spec.ID()),
	}
	if !spec.Image.Host {
		all[labelNetwork] = networkName(spec.Project)
	}
	maps.Copy(all, spec.Image.Labels)
	return all
}

func containerName(spec runtime.Spec) string {
	return fmt.Sprintf("locald-%s-%s-%d", spec.Project.ID, spec.Service, spec.Run)
}

// creation turns a spec into what the engine is asked for. n is nil on the
// host's network.
func (e *engine) creation(spec runtime.Spec, n *projectNetwork) client.ContainerCreateOptions {
	image := spec.Image
	config := &container.Config{
		Image:      image.Name,
		Cmd:        spec.Command,
		Entrypoint: image.Entrypoint,
		Env:        spec.Env,
		User:       image.User,
		WorkingDir: image.Workdir,
		Labels:     labels(spec),
		StopSignal: spec.StopSignal,
	}
	if image.Entrypoint != nil && len(image.Entrypoint) == 0 {
		config.Entrypoint = []string{""} // how the API spells "none"
	}
	if spec.Grace > 0 { // for whoever stops it without locald, in whole seconds
		seconds := int((spec.Grace + time.Second - 1) / time.Second)
		config.StopTimeout = &seconds
	}
	host := &container.HostConfig{
		Init:           new(true), // reaps what services leave, and passes signals on
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		LogConfig:      e.dialect.logs,
		ReadonlyRootfs: image.ReadOnly,
		Tmpfs:          tmpfs(image.Tmpfs),
		Mounts:         mounts(spec),
		Resources:      container.Resources{Memory: image.Memory, NanoCPUs: int64(image.CPUs * 1e9)},
	}
	if e.dialect.limits != nil {
		host.Ulimits = e.dialect.limits()
	}
	options := client.ContainerCreateOptions{Config: config, HostConfig: host, Name: containerName(spec)}
	if n == nil {
		host.NetworkMode = network.NetworkHost
		host.ExtraHosts = []string{"host.docker.internal:127.0.0.1"}
		return options
	}
	host.NetworkMode = container.NetworkMode(n.name)
	host.ExtraHosts = []string{"host.docker.internal:" + n.hostAddress()}
	options.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
		n.name: {NetworkID: n.id, Aliases: []string{spec.Service}},
	}}
	config.ExposedPorts, host.PortBindings = published(image.Ports)
	return options
}

// hostAddress is what host.docker.internal stands for: the network's own
// gateway where that is this host, and elsewhere what the engine knows.
func (n *projectNetwork) hostAddress() string {
	if n.local {
		return n.gateway.String()
	}
	return "host-gateway"
}

func published(ports []runtime.Port) (network.PortSet, network.PortMap) {
	exposed, bound := network.PortSet{}, network.PortMap{}
	for _, p := range ports {
		port, _ := network.PortFrom(uint16(p.Container), network.TCP) // checked
		exposed[port] = struct{}{}
		bound[port] = append(bound[port], network.PortBinding{
			HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: strconv.Itoa(p.Host),
		})
	}
	return exposed, bound
}

func tmpfs(entries []string) map[string]string {
	all := map[string]string{}
	for _, entry := range entries {
		target, options, _ := strings.Cut(entry, ":")
		all[target] = options
	}
	return all
}

func mounts(spec runtime.Spec) []mount.Mount {
	var all []mount.Mount
	for _, m := range spec.Image.Mounts {
		one := mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
		if !filepath.IsAbs(m.Source) {
			one.Type, one.Source = mount.TypeVolume, volumeName(spec.Project.ID, m.Source)
		}
		all = append(all, one)
	}
	return all
}
