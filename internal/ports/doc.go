// Package ports finds one free TCP port for each service, the same one
// tomorrow.
//
// It neither remembers ports, which package state does, nor holds them: between
// the choice and the service's own bind anybody may take one.
package ports
