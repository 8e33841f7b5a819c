//go:build !linux

package process

// Owns reports whether the process is the main one.
func (in *instance) Owns(pid int) bool { return pid == in.child.PID() }
