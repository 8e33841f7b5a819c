package postgres

import "syscall"

// becomeOrdinary does nothing: macOS has no user namespaces.
func becomeOrdinary(*syscall.SysProcAttr) {}
