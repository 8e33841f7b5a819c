package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/ipc"
)

func (a *app) config() *cobra.Command {
	return group(&cobra.Command{
		Use:   "config",
		Short: "Check and show the project's configuration",
	}, a.configCheck(), a.configShow(), a.configSchema())
}

func (a *app) configCheck() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "check",
		Short:   "Say everything that is wrong with the configuration",
		Example: `  locald config check`,
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			project, err := a.load()
			var invalid *config.Error
			if err != nil && !errors.As(err, &invalid) {
				return err
			}
			if asJSON {
				result := struct {
					Valid    bool          `json:"valid"`
					File     string        `json:"file,omitempty"`
					Problems []ipc.Problem `json:"problems"`
				}{Valid: err == nil, Problems: []ipc.Problem{}}
				if err != nil {
					result.Problems = faultOf(err).Problems
				} else {
					result.File = project.File
				}
				a.stdout.say(jsonLine(result))
				return err
			}
			if err != nil {
				return err
			}
			a.stdout.say(fmt.Sprintf("%s: %s: no problems in %s\n", safe(project.File), project.Name, plural(len(project.Services), "service")))
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (a *app) configShow() *cobra.Command {
	var asJSON, reveal bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the configuration with its defaults, and where each value is from",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			project, err := a.load()
			if err != nil {
				return err
			}
			values := config.Show(project, reveal)
			if asJSON {
				a.stdout.say(jsonLine(struct {
					Name   string         `json:"name"`
					Dir    string         `json:"dir"`
					File   string         `json:"file"`
					Values []config.Value `json:"values"`
				}{project.Name, project.Dir, project.File, values}))
				return nil
			}
			p := a.paint(a.stdout)
			widest := 0
			for _, v := range values {
				widest = max(widest, columnsOf(cell(v.String())))
			}
			for _, v := range values {
				text := cell(v.String())
				a.stdout.say(pad(text, min(widest, 48)) + "  " + p.as(dim, "# "+cell(v.Origin)) + "\n")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show passwords")
	return cmd
}

func (a *app) configSchema() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of locald.toml, for editors",
		Example: `  locald config schema > locald.schema.json`,
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			a.stdout.say(string(config.Schema()))
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "accepted; it is JSON in any case")
	return cmd
}

// noArgs is the check of a command that takes none.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, "%s: %q is one argument too many", cmd.Name(), args[0])
	}
	return nil
}
