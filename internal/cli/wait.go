package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) wait() *cobra.Command {
	what := choice{value: "ready", allowed: []string{"ready", "exited"}}
	var timeout duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "wait [SERVICE...]",
		Short: "Wait until services are ready, or have ended",
		Long: `Waits until the services that are named, or all that are wanted, are ready or
have ended. Exits with 1 at once when one has failed, and with 124 when the
time is over. It starts nothing.`,
		Example: `  locald wait web --timeout 30s
  locald wait migrate --for exited`,
		Args:              services(0, -1),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			project, err := a.project()
			if err != nil {
				return err
			}
			client, err := a.connect(cmd.Context(), startIfWanted)
			if errors.Is(err, ipc.ErrNoDaemon) {
				if _, err := a.idleStatus(args); err != nil {
					return err
				}
				return &ipc.Error{
					Code: ipc.CodeDaemonUnavailable, Exit: exitFailed,
					Message: "nothing is wanted here, so there is nothing to wait for", Hint: "locald up",
				}
			}
			if err != nil {
				return err
			}
			how := bootStyle{json: asJSON, noTable: true}
			v := a.view(how)
			if !asJSON && !a.live(a.stdout) {
				v = &lineView{out: a.stdout, errs: a.stderr, quiet: true}
			}
			last, err := follow(cmd.Context(), client, ipc.CallWait, ipc.WaitArgs{
				Project: project, Services: args, For: what.value, Timeout: timeout.String(),
			}, v)
			if err != nil {
				return err
			}
			return a.conclude(last, how)
		},
	}
	cmd.Flags().Var(&what, "for", "what to wait for")
	cmd.Flags().Var(&timeout, "timeout", "how long at most (default 5m)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print events as JSON, one a line")
	return cmd
}
