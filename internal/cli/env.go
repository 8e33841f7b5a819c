package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) env() *cobra.Command {
	format := choice{value: "dotenv", allowed: []string{"dotenv", "shell", "json"}}
	var explain, reveal, asJSON bool
	cmd := &cobra.Command{
		Use:   "env [SERVICE]",
		Short: "Print the environment of a service",
		Long: `Prints the variables that a service gets or, without one, those that something
which depends on every service would get. Passwords are masked on a terminal.
It starts no service.`,
		Example: `  locald env web
  locald env web --explain   where each value is from
  eval "$(locald env --format shell)"`,
		Args:              services(0, 1),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON {
				format.value = "json"
			}
			project, err := a.project()
			if err != nil {
				return err
			}
			client, err := a.connect(cmd.Context(), startAlways)
			if err != nil {
				return err
			}
			_, _, terminal := a.stdout.terminal()
			ask := ipc.EnvArgs{Project: project, Env: a.environ, Reveal: reveal || !terminal}
			if len(args) > 0 {
				ask.Service = args[0]
			}
			var env ipc.Env
			if err := client.Call(cmd.Context(), ipc.CallEnv, ask, &env); err != nil {
				return err
			}
			text, err := envText(env, format.value, explain)
			if err != nil {
				return err
			}
			if terminal {
				text = safe(text)
			}
			a.stdout.say(text)
			return nil
		},
	}
	cmd.Flags().Var(&format, "format", "dotenv, shell (with export) or json")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the same as --format json")
	cmd.Flags().BoolVar(&explain, "explain", false, "say where each value is from")
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show passwords on a terminal too")
	return cmd
}

// envText is an environment in one of the formats. With explain JSON is a list
// of variables and the others carry the origin as a comment.
func envText(env ipc.Env, format string, explain bool) (string, error) {
	if format == "json" {
		if explain {
			return jsonLine(env), nil
		}
		values := map[string]string{}
		for _, v := range env.Vars {
			values[v.Name] = v.Value
		}
		return jsonLine(values), nil
	}
	var b strings.Builder
	for _, v := range env.Vars {
		if explain {
			fmt.Fprintf(&b, "# %s\n", cell(v.Origin))
		}
		switch {
		case strings.ContainsRune(v.Value, 0):
			return "", fmt.Errorf("%s: its value contains a zero byte", v.Name)
		case format == "shell":
			if isName(v.Name) { // a shell can export no others
				fmt.Fprintf(&b, "export %s=%s\n", v.Name, shellQuote(v.Value))
			}
		default:
			fmt.Fprintf(&b, "%s=%s\n", v.Name, dotenvQuote(v.Value))
		}
	}
	return b.String(), nil
}

// isName reports whether a shell takes s for the name of a variable.
func isName(s string) bool {
	return s != "" && (s[0] < '0' || s[0] > '9') && strings.Trim(s, nameBytes) == ""
}

const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

// shellQuote is s as one word of any POSIX shell.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, nameBytes+"%+,-./:@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// dotenvQuote is s as a value of a .env file: bare when nothing in it means
// anything to a reader, in single quotes when those keep it as it is, and
// otherwise in double quotes with escapes.
func dotenvQuote(s string) string {
	switch {
	case strings.Trim(s, nameBytes+"%+,-./:@=?&*;()[]{}<>|^~!") == "":
		return s
	case !strings.ContainsAny(s, "'\n\r\\"):
		return "'" + s + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "$", `\$`).Replace(s) + `"`
}
