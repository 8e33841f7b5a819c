// Package daemon builds the house: it wires the rooms together, answers the
// calls of clients, and runs until it is told to leave. It knows every other
// room, and decides nothing that one of them could decide.
package daemon
