package cli

import (
	goruntime "runtime"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) version() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if !asJSON {
				a.stdout.say("locald " + a.hooks.Version + "\n")
				return nil
			}
			a.stdout.say(jsonLine(struct {
				Version  string `json:"version"`
				Protocol int    `json:"protocol"`
				Go       string `json:"go"`
				OS       string `json:"os"`
				Arch     string `json:"arch"`
			}{a.hooks.Version, ipc.Protocol, goruntime.Version(), goruntime.GOOS, goruntime.GOARCH}))
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
