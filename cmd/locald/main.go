// Command locald runs the services of a project on this machine. It is the
// client and the daemon in one program.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/locald/locald/internal/cli"
	"github.com/locald/locald/internal/daemon"
	"github.com/locald/locald/internal/keeper"
)

// version is set by the linker: -X main.version=0.1.0.
var version string

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	// The keeper is this program too. It comes before anything else is built: it is
	// to be small, and what it does it does without us.
	if len(args) > 0 && args[0] == "keeper" {
		return keeper.Main(args[1:])
	}
	if len(args) > 0 && hidden[args[0]] != nil {
		return hidden[args[0]](args[1:])
	}
	dir, err := os.Getwd()
	if err != nil {
		fmt.Fprintf(os.Stderr, "locald: the current directory: %v\nhint: cd\n", err)
		return 1
	}
	return cli.Main(context.Background(), args, cli.IO{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Environ: os.Environ(), Dir: dir, Listen: signals,
	}, cli.Hooks{Version: buildVersion(), Serve: serve, Leftovers: daemon.Leftovers})
}

// serve runs the daemon.
func serve(ctx context.Context, o cli.ServeOptions) error {
	return daemon.Serve(ctx, daemon.Options{Places: o.Places, Version: o.Version, Foreground: o.Foreground, Ready: o.Ready})
}

// signals hears those that commands react to or hand on to what they run. One
// that was ignored when we were started stays so, as under nohup.
func signals() <-chan os.Signal {
	c := make(chan os.Signal, 16)
	for _, sig := range []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	} {
		if !signal.Ignored(sig) {
			signal.Notify(c, sig)
		}
	}
	return c
}

// buildVersion is what the linker was told or, without that, what the go
// command recorded.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return strings.TrimPrefix(info.Main.Version, "v")
}
