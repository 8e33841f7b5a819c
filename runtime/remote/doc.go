// Package remote is a runtime in another process, as the contract has it: the
// two ends of a connection between a process that has runtimes and one that uses
// them. Either end may have some.
//
// What a call of the contract says travels as one frame, what comes of it as
// another, and what is reported meanwhile in between. A context that ends is
// told, and the answer is waited for all the same: that nothing was left behind
// is for the other end to say. Errors keep what callers act on: their text, the
// contract's kinds, faults and survivors.
//
// When the other process is gone, nothing is known of its instances: calls say
// runtime.ErrUnavailable.
package remote
