// Package cli is the commands: it turns arguments into calls of the daemon and
// what comes back into text.
//
// It decides nothing about services. Whatever it knows it was told over the
// socket, except for the commands under "config", which read the project's file
// themselves, and the daemon's places, which it must know to find or start the
// daemon. Only cmd/locald imports it.
package cli
