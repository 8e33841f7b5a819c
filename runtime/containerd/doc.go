// Package containerd runs services as containers of a containerd on this machine.
// Linux only, and for root.
//
// containerd is asked for what it is good at: images, their snapshots, and tasks.
// For each container a process of ours stands beside it (runtime/outer), which is
// its network and published ports and has its output; and the first process in it
// is ours as well (internal/pid1), which reaps, hands on signals, and starts
// further commands and health checks. So nothing is lost when the daemon ends or
// containerd does, and what is left ends with the keeper.
//
// Everything is in containerd's namespace Namespace, and carries the labels that
// containers in other engines have. Named volumes are directories of the state.
//
// It does not set up CNI, does not build, and does not speak to a containerd in a
// virtual machine or in another mount namespace: files and namespaces are handed
// over by their names.
package containerd
