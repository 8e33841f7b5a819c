package cli

import (
	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) exec() *cobra.Command {
	var noTerminal bool
	cmd := &cobra.Command{
		Use:   "exec SERVICE [--] COMMAND...",
		Short: "Run a command inside of a service",
		Long: `Runs a command inside of a service that runs: in its container, or with the
environment and the directory of its process. Its exit status is that of
locald.`,
		Example: `  locald exec db psql
  locald exec cache redis-cli ping`,
		Args:              serviceAndCommand,
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			service, command := splitCommand(args)
			return a.inService(cmd.Context(), ipc.RunArgs{Service: service, Mode: "exec"}, command, noTerminal)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVarP(&noTerminal, "no-terminal", "T", false, "pipes instead of a terminal")
	return cmd
}
