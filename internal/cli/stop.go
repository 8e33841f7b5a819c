package cli

import (
	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) stop() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "stop SERVICE...",
		Short:             "Stop services",
		Long:              `Stops services. They stay stopped until the next up or start.`,
		Example:           `  locald stop web`,
		Args:              services(1, -1),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			project, err := a.recorded()
			if err != nil {
				return err
			}
			return a.end(cmd, lowering{
				call: ipc.CallStop, args: ipc.ServiceArgs{Project: project, Services: args}, json: asJSON,
				of: ipc.LeftArgs{Project: project, Services: args},
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print events as JSON, one a line")
	return cmd
}
