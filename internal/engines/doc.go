// Package engines is the way to what speaks to container engines: a process of
// its own, which is started when it is first needed.
//
// The libraries for engines are many times the rest of locald. In a process of
// their own they cost nothing to a command that needs no container, and nothing
// to a daemon that has none. What is called there is the contract of package
// runtime, by package remote. The process ends with its connection, whatever
// becomes of the daemon; nothing is a child of it that matters.
//
// "make build" packs the process's program, cmd/engines, and the one that makes
// builtin containers, cmd/maker, into locald. A locald that was built without them
// is both itself.
package engines
