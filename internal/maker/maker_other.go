//go:build !linux

package maker

import "github.com/locald/locald/internal/pid1"

// Main is the hidden command "locald container", and returns the exit status.
func Main(args []string) int { return pid1.Main(args, nil) }
