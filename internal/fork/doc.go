// Package fork starts programs for a process that has many descriptors, and
// starts many.
//
// [syscall.ForkExec] copies the table of descriptors into the child, where exec
// closes one after the other, and waits for the end of that at a pipe. Here the
// child is made with a table that it shares, leaves it for one of the few
// descriptors that it is meant to have, and answers in memory that it shares
// until it is another program (ADR 34).
package fork
