// Package process runs services as plain processes, held by the keeper.
//
// It does not fork, does not hold pipes and does not know how a run is ended:
// package keeper does. It does not restart, wait for dependencies or judge
// health. It may import runtime, internal/keeper and internal/sockets.
package process
