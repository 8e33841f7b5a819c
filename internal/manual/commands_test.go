package manual

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/locald/locald/internal/cli"
)

// run is what a locald command prints that needs no daemon.
func run(t *testing.T, args ...string) string {
	t.Helper()
	var out, wrong strings.Builder
	status := cli.Main(context.Background(), args, cli.IO{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &wrong, Dir: t.TempDir(),
	}, cli.Hooks{Version: "0.0.0"})
	if status != 0 {
		t.Fatalf("locald %s: exit %d: %s", strings.Join(args, " "), status, &wrong)
	}
	return out.String()
}

// below is the commands below one, as completion offers them.
func below(t *testing.T, command ...string) []string {
	t.Helper()
	var names []string
	offered := run(t, append(append([]string{"__complete"}, command...), "")...)
	for line := range strings.Lines(offered) {
		name, _, described := strings.Cut(line, "\t")
		if described && name != "help" {
			names = append(names, name)
		}
	}
	return names
}

// TestCommands writes what "locald COMMAND --help" says of every command.
func TestCommands(t *testing.T) {
	var text strings.Builder
	section := func(command ...string) {
		help := run(t, append(command, "--help")...)
		help, _, _ = strings.Cut(help, "\nGlobal Flags:")
		fmt.Fprintf(&text, "### `locald %s`\n\n```text\n%s\n```\n\n", strings.Join(command, " "), strings.TrimSpace(help))
	}
	top := below(t)
	if len(top) < 15 {
		t.Fatalf("only %v", top)
	}
	for _, name := range top {
		switch name {
		case "server", "config":
			for _, sub := range below(t, name) {
				section(name, sub)
			}
		case "images": // lists them, and has a command below it
			section(name)
			section(name, "prune")
		default:
			section(name)
		}
	}
	generated(t, "commands.md", "commands", text.String())

	_, global, _ := strings.Cut(run(t, "up", "--help"), "\nGlobal Flags:\n")
	generated(t, "commands.md", "global flags", "```text\n"+strings.TrimRight(global, "\n")+"\n```")
}
