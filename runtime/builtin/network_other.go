//go:build !linux

package builtin

import "github.com/locald/locald/internal/pid1"

// Main is the hidden command "locald container".
func Main(args []string) int { return pid1.Main(args, nil) }
