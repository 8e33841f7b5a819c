package cli

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

// IO is the world of one command.
type IO struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string // "KEY=value"
	Dir            string   // where relative paths begin; absolute

	// Listen begins to hear the signals sent to this process that a command
	// reacts to or hands on, which takes a while and is called beside the
	// command. SIGINT, SIGTERM and SIGHUP end a command that does neither. nil
	// hears none.
	Listen func() <-chan os.Signal

	// Size is the size of the terminal that w writes to; ok is false when it
	// is not a terminal. nil asks the system.
	Size func(w io.Writer) (columns, rows int, ok bool)

	// Now is the clock; nil is the system's.
	Now func() time.Time
}

// Hooks is what the commands need of the rooms they may not know.
type Hooks struct {
	// Version is this build's, "0.1.0".
	Version string

	// Serve is the daemon. It returns when ctx ends and every service has been
	// stopped, or with state.ErrLocked when another daemon serves the
	// directory.
	Serve func(ctx context.Context, o ServeOptions) error

	// Leftovers is what is there of what daemons have made, where none runs.
	// nil finds nothing.
	Leftovers func(ctx context.Context, places state.Places, environ []string, args ipc.LeftArgs) (ipc.Leftovers, error)
}

// ServeOptions says how a daemon is to run.
type ServeOptions struct {
	Places  state.Places
	Version string

	// Foreground: somebody watches standard error, which gets the log.
	// Otherwise standard output and error are the log file already.
	Foreground bool

	// Ready, unless nil, gets one line once calls are answered: {"ok":true}.
	// The daemon then closes it. When Serve returns an error instead, the
	// caller writes it there.
	Ready *os.File
}

// Main runs the command that args (without the program's name) ask for and
// returns the exit status, as docs/manual/commands.md has them.
func Main(ctx context.Context, args []string, io IO, hooks Hooks) int {
	a := newApp(io, hooks)
	a.args = args
	ctx, stop := a.signals.watch(ctx, io.Listen)
	defer stop()
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = a.stdout.failed()
	}
	return a.report(ctx, cmd, err)
}

// app is one invocation.
type app struct {
	stdin   io.Reader
	stdout  *output
	stderr  *output
	args    []string
	environ []string
	dir     string
	now     func() time.Time
	hooks   Hooks
	signals *signals
	global  globals
}

// globals are the flags of every command.
type globals struct {
	directory string
	file      string
	profiles  []string
	sandbox   string
	color     string
	verbose   bool
}

func newApp(io IO, hooks Hooks) *app {
	a := &app{
		stdin: io.Stdin, environ: io.Environ, dir: io.Dir, now: io.Now, hooks: hooks,
		signals: &signals{listens: make(chan struct{})},
	}
	if a.now == nil {
		a.now = time.Now
	}
	size := io.Size
	if size == nil {
		size = terminalSize
	}
	a.stdout = &output{to: io.Stdout, size: size}
	a.stderr = &output{to: io.Stderr, size: size}
	return a
}

// getenv is the last value of a variable, as the shell has it.
func (a *app) getenv(name string) string {
	for _, v := range slices.Backward(a.environ) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// output is standard output or standard error. Writes are whole and never mix.
type output struct {
	to   io.Writer
	size func(io.Writer) (columns, rows int, ok bool)

	mu  sync.Mutex
	err error
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.to.Write(p)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

// say writes text as it is; what went wrong is for failed.
func (o *output) say(text string) { _, _ = o.Write([]byte(text)) }

// failed is the first error of a write, so that a full disk under a
// redirection does not count as success.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// terminal reports whether somebody looks at it, and how large it is.
func (o *output) terminal() (columns, rows int, ok bool) { return o.size(o.to) }

const groupServices, groupProject, groupLocald = "services", "project", "locald"

func (a *app) root() *cobra.Command {
	var versionWanted bool
	root := &cobra.Command{
		Use:   "locald",
		Short: "Runs the services of a project on this machine",
		Long: `locald runs the services of a project on this machine: your programs,
containers and databases, as locald.toml describes them.`,
		Example: `  locald up                 start everything and wait until it is ready
  locald status             what runs where
  locald logs -f web        follow what web writes
  locald run web -- npm t   a command with web's environment
  locald down               stop everything`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if versionWanted {
				a.stdout.say("locald " + a.hooks.Version + "\n")
				return nil
			}
			return cmd.Help()
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(cmd, "%s", plainly(err))
	})
	f := root.PersistentFlags()
	f.StringVarP(&a.global.directory, "directory", "C", "", "the directory to begin in")
	f.StringVar(&a.global.file, "file", "", "the project's file, instead of the nearest locald.toml")
	f.StringSliceVar(&a.global.profiles, "profile", nil, "start the services of this profile too (repeatable; LOCALD_PROFILES)")
	f.StringVar(&a.global.sandbox, "sandbox", "", "a daemon of that name, with state, socket and log of its own")
	f.StringVar(&a.global.color, "color", "auto", "auto, always or never")
	f.BoolVar(&a.global.verbose, "verbose", false, "say more")
	root.AddGroup(
		&cobra.Group{ID: groupServices, Title: "Services:"},
		&cobra.Group{ID: groupProject, Title: "The project:"},
		&cobra.Group{ID: groupLocald, Title: "locald itself:"},
	)
	a.add(root, groupServices, a.up(), a.down(), a.start(), a.stop(), a.restart(), a.status(), a.logs(), a.wait())
	a.add(root, groupProject, a.run(), a.exec(), a.env(), a.port(), a.config())
	a.add(root, groupLocald, a.server(), a.doctor(), a.images(), a.completion(root), a.version())
	// Not by cobra's own flag: its template brings text/template into the program,
	// and with that every method that somebody might call by its name.
	root.Flags().BoolVarP(&versionWanted, "version", "v", false, "version for locald")
	root.SetHelpCommandGroupID(groupLocald)
	root.SetHelpCommand(a.help(root))
	return root
}

func (a *app) help(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 && cmd.HasSubCommands() {
				if cmd == nil {
					cmd = root
				}
				return unknownCommand(cmd, args[len(args)-1])
			}
			return cmd.Help()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			cmd, _, err := root.Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, c := range cmd.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, c.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func (a *app) add(parent *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		parent.AddCommand(c)
	}
}

// group is a command that only has others below it.
func group(c *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	c.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(cmd, args[0])
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	c.AddCommand(commands...)
	return c
}

func unknownCommand(cmd *cobra.Command, name string) error {
	err := usage(cmd, "unknown command %q", name)
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	if near := config.Nearest(name, names); near != "" {
		err.Hint = cmd.CommandPath() + " " + near
	}
	return err
}

// services is the check of arguments that name services: at least min of them
// and, with max not negative, at most max.
func services(min, max int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return usage(cmd, "%s: name a service", cmd.Name())
		case max >= 0 && len(args) > max:
			return usage(cmd, "%s: %q is one argument too many", cmd.Name(), args[max])
		}
		return nil
	}
}
