package cli

import (
	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) start() *cobra.Command {
	return a.waiting(&cobra.Command{
		Use:     "start SERVICE...",
		Short:   "Start services and wait until they are ready",
		Long:    `Starts services with what they depend on and waits, as up does for all.`,
		Example: `  locald start web`,
	}, ipc.CallStart)
}

// waiting is a command that names services, makes a call that starts them, and
// waits like up.
func (a *app) waiting(cmd *cobra.Command, call string) *cobra.Command {
	var timeout duration
	var asJSON bool
	cmd.Args = services(1, -1)
	cmd.ValidArgsFunction = a.completeServices
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		project, err := a.project()
		if err != nil {
			return err
		}
		client, err := a.connect(cmd.Context(), startAlways)
		if err != nil {
			return err
		}
		return a.boot(cmd.Context(), client, call, ipc.ServiceArgs{
			Project: project, Services: args, Env: a.environ, WaitTimeout: timeout.String(),
		}, bootStyle{json: asJSON})
	}
	cmd.Flags().Var(&timeout, "wait-timeout", "how long to wait (default 5m)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print boot events as JSON, one a line")
	return cmd
}
