// Package podman runs a Podman service for tests: with storage, networks, locks
// and a socket of its own, so that nothing of the machine's own Podman is seen or
// touched. It needs Linux and root.
package podman
