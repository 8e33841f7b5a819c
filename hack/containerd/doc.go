// Package containerd runs a containerd for tests: with images, state and a socket
// of its own, so that nothing of the machine's own is seen or touched. It needs
// Linux and root.
package containerd
