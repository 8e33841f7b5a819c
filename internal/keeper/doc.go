// Package keeper holds the children and the pipes of all services of one
// daemon in one process of its own, which outlives a crash of the daemon.
//
// It does not restart, does not judge health, does not know projects or
// dependencies, and adopts nothing: when its connection to the daemon ends it
// stops every run gracefully and exits. It may import internal/logs only.
//
// The daemon's side is a Keeper; the other side is Main, the hidden command
// "locald keeper". They speak frames of JSON over a socket pair, with file
// descriptors beside them.
//
// # Marks
//
// Every process of a run is marked twice, so that it can be told apart after
// the daemon and the keeper are gone: by the environment variable LOCALD_MARK,
// which says in words whose it is, and by a number in the hard limit of
// RLIMIT_LOCKS. That limit has had no effect since Linux 2.4.25, is inherited
// by fork and exec, can be read of any process, and cannot be raised without
// privilege; so it stays on processes that overwrite their environment. See
// Mark for the layout.
//
// # What one service may take from the others
//
// A service that forks without end would take every process that the user may
// have, and the Go runtime ends with the first thread that it cannot make. So
// services have a lower RLIMIT_NPROC than daemon and keeper, and each run a
// session of its own, as the scheduler shares the processors out by sessions.
// The forced end stops what it finds before it kills: what is stopped keeps its
// place below the limit, and nothing can be forked into it.
//
// # What limits a run
//
// A run with Limits gets control groups in which they hold, of version 2 where
// the controllers are delegated, else of version 1. Its main process stays
// outside and decides what goes there: what stands for a container is no part of
// it. In version 2 a group that hands controllers down can have no process, so
// daemon and keeper leave theirs for one below it, if nobody else is there, when
// the first run with limits comes.
//
// # What proves that a run has ended
//
// The keeper is a subreaper, so whoever loses its parent becomes the keeper's
// child. A living descendant of a run has therefore a chain of parents up to a
// child of the keeper, and a run whose main process was reaped and to which no
// other child of the keeper belongs has left nothing, whatever its processes
// did to their session, group or environment. A child that carries no mark at
// all belongs to every run that may have been its ancestor, and is ended with
// the last of them.
package keeper
