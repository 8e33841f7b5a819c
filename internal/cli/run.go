package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) run() *cobra.Command {
	var noDeps, noTerminal bool
	cmd := &cobra.Command{
		Use:   "run SERVICE [--] COMMAND...",
		Short: "Run a command with the environment of a service",
		Long: `Runs a command on this machine in the directory of a service, with the
service's environment, after starting what the service depends on. Its exit
status is that of locald.`,
		Example: `  locald run web npm test
  locald run web -- psql      the database that web uses`,
		Args:              serviceAndCommand,
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			service, command := splitCommand(args)
			return a.inService(cmd.Context(), ipc.RunArgs{Service: service, Mode: "run", NoDeps: noDeps}, command, noTerminal)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVar(&noDeps, "no-deps", false, "do not start what the service depends on")
	cmd.Flags().BoolVarP(&noTerminal, "no-terminal", "T", false, "pipes instead of a terminal")
	return cmd
}

// serviceAndCommand is the check of arguments that name a service and what to
// run.
func serviceAndCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(cmd, "%s: name a service and a command", cmd.Name())
	}
	if _, command := splitCommand(args); len(command) == 0 || command[0] == "" {
		return usage(cmd, "%s %s: the command to run is missing", cmd.Name(), args[0])
	}
	return nil
}

func splitCommand(args []string) (service string, command []string) {
	service, command = args[0], args[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	return service, command
}

// inService asks where a command is to be run for a service, and runs it there.
func (a *app) inService(ctx context.Context, args ipc.RunArgs, command []string, noTerminal bool) error {
	var err error
	if args.Project, err = a.project(); err != nil {
		return err
	}
	args.Env = a.environ
	client, err := a.connect(ctx, startAlways)
	if err != nil {
		return err
	}
	// Standard output belongs to the command.
	lines := a.lineView(a.stderr)
	lines.quiet = !a.global.verbose
	var v view = lines
	if a.live(a.stderr) {
		v = newLiveView(a.stderr, a.stderr, a.paint(a.stderr), a.now)
	}
	last, err := follow(ctx, client, ipc.CallRun, args, v)
	if err == nil {
		err = a.conclude(last, bootStyle{noTable: true})
	}
	var fault *ipc.Error
	if args.Mode == "exec" && errors.As(err, &fault) && fault.Code == ipc.CodeEngineUnavailable {
		fault.Exit = exitUnavailable
	}
	switch {
	case err != nil:
		return err
	case last.Target == nil:
		return ipc.ErrCut
	case last.Target.Container != "":
		return a.runInContainer(ctx, *last.Target, command, noTerminal)
	}
	return a.runHere(*last.Target, command, noTerminal)
}
