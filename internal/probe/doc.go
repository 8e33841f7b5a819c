// Package probe tells when an instance is ready.
//
// It only finds out and reports; what follows from a finding is the
// supervisor's. A listener that belongs to somebody else never makes a service
// ready. It imports runtime and internal/sockets, no other room of locald.
package probe
