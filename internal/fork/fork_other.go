//go:build linux && !amd64 && !arm64

package fork

import "syscall"

// MaxFiles is how many descriptors a program can be given.
const MaxFiles = 8

// Starter starts nothing on this architecture.
type Starter struct{}

// Program is what to execute.
type Program struct {
	Path      string
	Argv, Env []string
	Dir       string
	Files     []int
	Group     int
}

// New returns a Starter.
func New() (*Starter, error) { return &Starter{}, nil }

// Start returns ENOSYS.
func (*Starter) Start(*Program) (pid int, err error) { return 0, syscall.ENOSYS }
