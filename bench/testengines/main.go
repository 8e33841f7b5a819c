// Command testengines starts a Podman and a containerd of its own, those of them
// that the machine has, for as long as it runs. It prints a line for each, with
// the variable by which programs find it, and then "serving".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, engine := range []struct {
		name  string
		start func(context.Context) (variable string, end func(), err error)
	}{{"podman", podmanOfOurs}, {"containerd", containerdOfOurs}} {
		variable, end, err := engine.start(ctx)
		if err != nil {
			fmt.Fprintf(os.Stderr, "testengines: without %s: %v\n", engine.name, err)
			continue
		}
		defer end()
		fmt.Println(variable)
	}
	fmt.Println("serving")
	<-ctx.Done()
}
