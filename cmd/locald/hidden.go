//go:build !carried

package main

import (
	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/internal/engines/host"
	"github.com/locald/locald/internal/maker"
)

// hidden are the commands of programs that "make build" packs into locald. One
// that was built without them is these programs itself, and each of its commands
// pays for their libraries.
var hidden = map[string]func(args []string) int{
	engines.Command:      host.Main,
	engines.MakerCommand: maker.Main,
}
