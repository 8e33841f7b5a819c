// Command engines is what of locald speaks to container engines, and nothing else.
// "make build" packs it into locald, which nobody else has to know.
package main

import (
	"os"

	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/internal/engines/host"
	"github.com/locald/locald/internal/maker"
)

func main() {
	args := os.Args[1:]
	switch {
	case len(args) > 0 && args[0] == engines.MakerCommand: // beside and in a container of containerd
		os.Exit(maker.Main(args[1:]))
	case len(args) > 0 && args[0] == engines.Command:
		args = args[1:]
	}
	os.Exit(host.Main(args))
}
