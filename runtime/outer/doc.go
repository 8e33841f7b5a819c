// Package outer is what the containers have in common for which a process of ours
// stands: those that locald makes itself, and those that it has an engine make.
//
// The process is a run of the process runtime. It serves the container's network,
// hands on signals and output, and ends as the container's main program did (see
// internal/pid1). So the keeper stores the output, and what an earlier daemon left
// ends like any process.
//
// Named volumes and the sockets of networks are directories of the state. This
// package neither has images nor makes containers: its callers do.
package outer
