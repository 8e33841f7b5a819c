package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) down() *cobra.Command {
	var volumes, asJSON bool
	cmd := &cobra.Command{
		Use:   "down [SERVICE...]",
		Short: "Stop services, those that depend on others first",
		Long: `Stops the services that are named, or all. Services that depend on a named
one are stopped before it. They stay stopped until the next up or start.`,
		Example: `  locald down
  locald down db             db, and before it what depends on it
  locald down -v db          and delete db's data`,
		Args:              services(0, -1),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			project, err := a.project()
			if err != nil {
				return err
			}
			return a.end(cmd, ipc.CallDown, ipc.DownArgs{Project: project, Services: args, Volumes: volumes}, asJSON, volumes)
		},
	}
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "delete the services' data too, but never a directory of yours")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print events as JSON, one a line")
	return cmd
}

// end makes a call that stops services. Where no daemon runs there may still be
// something to end: what it left behind when it was killed. Data is only where
// a daemon is.
func (a *app) end(cmd *cobra.Command, call string, args any, asJSON, data bool) error {
	when := startIfWanted
	if data {
		when = startAlways
	}
	client, err := a.connect(cmd.Context(), when)
	if errors.Is(err, ipc.ErrNoDaemon) {
		if asJSON {
			zero := 0
			a.stdout.say(jsonLine(ipc.Event{Time: a.now(), Event: ipc.EventDone, Exit: &zero}))
		}
		return nil
	}
	if err != nil {
		return err
	}
	how := bootStyle{json: asJSON, lines: true, noTable: true}
	last, err := follow(cmd.Context(), client, call, args, a.view(how))
	if err != nil {
		return err
	}
	return a.conclude(last, how)
}
