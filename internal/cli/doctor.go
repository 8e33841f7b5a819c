package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) doctor() *cobra.Command {
	var asJSON, leftovers bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what stands in the way on this machine",
		Long: `Looks at the container engines and says which is used and why, at how services
are kept together, at the daemon, at what earlier ones left behind and at the
ports, with a remedy for each finding. Exits with 1 when something is wrong.

With --leftovers it lists every process, container, network, volume, port and
file that locald made for any project and that is there, and what removes it.
It then needs no daemon and starts none, and exits with 1 when something is left
over: belongs to nothing that runs, and is no data, log or record.`,
		Example: `  locald doctor
  locald doctor --leftovers`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if leftovers {
				return a.leftovers(cmd.Context(), asJSON)
			}
			found, err := a.examine(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				a.stdout.say(jsonLine(found))
			} else {
				a.stdout.say(doctorText(found, a.paint(a.stdout)))
			}
			for _, c := range found.Checks {
				if !c.OK {
					return exitStatus(exitFailed)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&leftovers, "leftovers", false, "list what locald made and what is still there")
	return cmd
}

// examine asks the daemon. That there is none to ask is a finding too.
func (a *app) examine(ctx context.Context) (ipc.Doctor, error) {
	var found ipc.Doctor
	client, err := a.connect(ctx, startAlways)
	if err == nil {
		err = client.Call(ctx, ipc.CallDoctor, ipc.NoArgs{}, &found)
	}
	if err == nil || ctx.Err() != nil {
		return found, err
	}
	fault := faultOf(err)
	return ipc.Doctor{Checks: []ipc.Check{{Area: "daemon", Name: "running", Detail: fault.Message, Remedy: fault.Hint}}}, nil
}

func doctorText(found ipc.Doctor, p paint) string {
	t := newTable("", "AREA", "CHECK", "FOUND")
	for _, c := range found.Checks {
		mark, colour := "ok", green
		if !c.OK {
			mark, colour = "no", red
		}
		row := t.row(mark, c.Area, c.Name, c.Detail)
		row[0].colour = colour
		if c.Remedy != "" {
			t.row("", "", "", "→ "+c.Remedy)[3].colour = yellow
		}
	}
	return t.text(p, 0)
}
