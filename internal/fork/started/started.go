//go:build linux && (amd64 || arm64)

// Package started has what the process was started with and the Go runtime's
// packages change: syscall raises how many files it may open. Packages are
// initialised in the order of their paths, those that need no other first, so
// this one imports nothing.
package started

// OpenFiles is RLIMIT_NOFILE, the soft one; 0 when it cannot be read.
var OpenFiles = openFiles()

func openFiles() uint64 {
	const files = 7 // RLIMIT_NOFILE
	var limit [2]uint64
	if prlimit(files, &limit) != 0 {
		return 0
	}
	return limit[0]
}

// prlimit is prlimit64(2) for this process, without a new limit.
//
//go:noescape
func prlimit(resource uintptr, old *[2]uint64) (errno uintptr)
