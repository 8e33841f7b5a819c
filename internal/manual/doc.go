// Package manual keeps docs/manual in step with the code: its tests write the
// parts that are generated, and fail when a key, a command, a call or a code is
// not mentioned there. It has no code of its own.
package manual
