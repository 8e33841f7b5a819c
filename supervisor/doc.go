// Package supervisor keeps each service the way the user last asked for it.
//
// A service is owned by one actor: one goroutine, one mailbox. What an event
// means is a pure function of the service's state (event.go), and what follows
// is a list of effects, each of which reports back as another event. Between
// the services of a project stands one more goroutine, the coordinator
// (supervisor.go), which alone knows the graph: it tells each actor whether
// what the service depends on is there, and hands out wishes in an order in
// which nothing loses what it stands on. Nothing else changes a service's
// state, so no lock guards it.
//
// It does not know where a service was written, how it is shown or how its
// state is recorded. It imports the runtime contract and nothing else of ours.
package supervisor
