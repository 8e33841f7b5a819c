package config

import (
	"path/filepath"
	"slices"
	"strings"
)

// DockerSocket is the word in allow for an engine's socket in a container.
const DockerSocket = "docker-socket"

// engineSockets are the names of the sockets of engines.
var engineSockets = []string{"docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock", "docker.raw.sock", "cri-dockerd.sock"}

// Engines is what engine may be in a project's file.
func Engines() []string { return slices.Clone(engines) }

// ReachesEngine reports whether a path of the host, mounted into a container,
// lets that command the engine and so the whole machine: it is an engine's
// socket, or a directory that such sockets are in.
func ReachesEngine(path string) bool {
	path = filepath.Clean(path)
	dir := strings.TrimPrefix(path, "/var")
	switch dir {
	case "/", "", "/run", "/run/docker", "/run/podman", "/run/containerd", "/run/user":
		return true
	}
	if rest, below := strings.CutPrefix(dir, "/run/user/"); below {
		uid, rest, _ := strings.Cut(rest, "/")
		if uid != "" && slices.Contains([]string{"", "podman", "docker"}, rest) {
			return true
		}
	}
	return slices.Contains(engineSockets, filepath.Base(path))
}

// MayReachEngine reports whether the service is allowed to.
func (s *Service) MayReachEngine() bool { return slices.Contains(s.Allow, DockerSocket) }
