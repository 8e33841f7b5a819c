package cli

import (
	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) restart() *cobra.Command {
	return a.waiting(&cobra.Command{
		Use:   "restart SERVICE...",
		Short: "Stop services and start them again",
		Long: `Stops services and starts them again, with the configuration and the
environment as they are now, and waits until they are ready.`,
		Example: `  locald restart web`,
	}, ipc.CallRestart)
}
