package cli

import (
	"context"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

// upFlags are the flags of up.
type upFlags struct {
	detach, wait        bool
	foreground, follow  bool
	plan, json          bool
	noDeps, forceCreate bool
	pull                choice
	timeout             duration
}

func (a *app) up() *cobra.Command {
	flags := upFlags{pull: choice{value: "missing", allowed: []string{"always", "missing", "never"}}}
	cmd := &cobra.Command{
		Use:   "up [SERVICE...]",
		Short: "Start services and wait until they are ready",
		Long: `Starts the services that are named, or all, with what they depend on, and
waits until each is ready. Services that run already and did not change are left
alone; those that changed are restarted, and those that are no longer in the
file are stopped.

Missing images are pulled at once and side by side. On a terminal that shows a
bar for each of their layers; otherwise a line now and then.`,
		Example: `  locald up
  locald up web              web and what it depends on
  locald up --plan           what would change, and why
  locald up --foreground     follow the logs; Ctrl-C stops everything`,
		Args:              services(0, -1),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runUp(cmd, args, flags)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&flags.detach, "detach", "d", false, "return at once and let services start")
	f.BoolVar(&flags.wait, "wait", false, "wait until everything is ready (the default; with -d without the live view)")
	f.Var(&flags.timeout, "wait-timeout", "how long to wait, without pulling and building (default 5m)")
	f.BoolVar(&flags.foreground, "foreground", false, "follow the logs; Ctrl-C stops the services, a second one kills them")
	f.BoolVarP(&flags.follow, "follow", "f", false, "follow the logs; Ctrl-C leaves the services running")
	f.BoolVar(&flags.plan, "plan", false, "print what would change and why, and change nothing")
	f.Var(&flags.pull, "pull", "when to pull images")
	f.BoolVar(&flags.noDeps, "no-deps", false, "do not start what the named services depend on")
	f.BoolVar(&flags.forceCreate, "force-recreate", false, "restart services although nothing changed")
	f.BoolVar(&flags.json, "json", false, "print boot events as JSON, one a line")
	return cmd
}

func (a *app) runUp(cmd *cobra.Command, names []string, flags upFlags) error {
	ctx := cmd.Context()
	if err := exclusive(cmd, "foreground", "follow", "detach", "plan"); err != nil {
		return err
	}
	project, err := a.project()
	if err != nil {
		return err
	}
	client, err := a.connect(ctx, startAlways)
	if err != nil {
		return err
	}
	args := ipc.UpArgs{
		Project: project, Services: names, Env: a.environ, NoDeps: flags.noDeps, ForceRecreate: flags.forceCreate,
		Pull: flags.pull.value, Detach: flags.detach && !flags.wait, WaitTimeout: flags.timeout.String(),
	}
	how := bootStyle{json: flags.json, lines: flags.detach || flags.foreground || flags.follow, detached: args.Detach}
	switch {
	case flags.plan:
		return a.plan(ctx, client, args, flags.json)
	case flags.foreground:
		return a.foreground(ctx, client, args, how)
	case flags.follow:
		return a.bootAndFollow(ctx, client, args, a.followLogs(args), how, nil, &announced{})
	}
	return a.boot(ctx, client, ipc.CallUp, args, how)
}

// plan prints what up would change.
func (a *app) plan(ctx context.Context, client *ipc.Client, args ipc.UpArgs, asJSON bool) error {
	var plan ipc.Plan
	if err := client.Call(ctx, ipc.CallPlan, args, &plan); err != nil {
		return err
	}
	if asJSON {
		a.stdout.say(jsonLine(plan))
		return nil
	}
	p := a.paint(a.stdout)
	t := newTable("NAME", "WOULD", "BECAUSE")
	for _, c := range plan.Changes {
		row := t.row(c.Service, c.Op, c.Cause)
		row[1].colour = map[string]string{"start": green, "stop": red, "restart": yellow, "keep": dim}[c.Op]
	}
	if len(t.rows) == 0 {
		a.stdout.say("nothing would change\n")
		return nil
	}
	a.stdout.say(t.text(p, 0))
	return nil
}

// followLogs is what logs of a boot are followed: those from here on.
func (a *app) followLogs(args ipc.UpArgs) ipc.LogsArgs {
	return ipc.LogsArgs{
		Project: args.Project, Services: args.Services, Follow: true, Tail: -1,
		Since: a.now().UTC().Format(time.RFC3339Nano),
	}
}

// bootAndFollow is up and then logs -f, from the first event on, so that what
// services write while they start is seen too. It ends with the logs, with a
// failure, or with ctx. What was printed is noted in seen.
func (a *app) bootAndFollow(ctx context.Context, client *ipc.Client, args ipc.UpArgs, logs ipc.LogsArgs, how bootStyle, seen map[string]uint64, v *announced) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	followed := make(chan error, 1)
	v.view, v.first = a.view(how), func() {
		go func() {
			defer close(followed)
			names := a.names(ctx, client, args.Project, args.Services)
			followed <- a.printLogs(ctx, client, logs, logStyle{json: how.json, names: names, seen: seen})
		}()
	}
	last, err := follow(ctx, client, ipc.CallUp, args, v)
	if err == nil && !v.isMuted() {
		err = a.conclude(last, how)
	}
	if err != nil {
		cancel()
		if v.announced {
			for range followed { // it was only cancelled
			}
		}
		return err
	}
	return <-followed
}

// announced is a view that says when it has seen the first event, and knows
// which services it has seen to start.
type announced struct {
	view
	first     func()
	announced bool

	mu     sync.Mutex
	muted  bool
	starts []string
}

// mute ends what is shown, and returns what has been seen to start.
func (v *announced) mute() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.muted = true
	return v.starts
}

func (v *announced) isMuted() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.muted
}

func (v *announced) show(e ipc.Event, raw []byte) {
	v.mu.Lock()
	switch e.Event {
	case ipc.EventPending, ipc.EventPreparing, ipc.EventStarting, ipc.EventStarted:
		if e.Service != "" && !slices.Contains(v.starts, e.Service) {
			v.starts = append(v.starts, e.Service)
		}
	}
	muted := v.muted
	v.mu.Unlock()
	if !muted {
		v.view.show(e, raw)
	}
	if !v.announced {
		v.announced = true
		v.first()
	}
}

// foreground is up that ends with down: the first Ctrl-C stops the services,
// the second kills them. What they write while they stop is still shown.
func (a *app) foreground(ctx context.Context, client *ipc.Client, args ipc.UpArgs, how bootStyle) error {
	interrupts, release := a.signals.claim()
	defer release()
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	logs := a.followLogs(args)
	seen := map[string]uint64{}
	ended := make(chan error, 1)
	boot := &announced{}
	go func() {
		defer close(ended)
		ended <- a.bootAndFollow(following, client, args, logs, how, seen, boot)
	}()
	for {
		select {
		case err := <-ended:
			return err
		case sig := <-interrupts:
			if !isEnd(sig) {
				continue
			}
			if started := boot.mute(); len(args.Services) > 0 {
				args.Services = append(slices.Clone(args.Services), started...)
			}
			err := a.takeDown(ctx, client, args, interrupts, how)
			cancel()
			for range ended { // it was only cancelled
			}
			// The last lines may have come after the follower's last look.
			logs.Follow = false
			names := args.Services
			for name := range seen {
				names = append(names, name)
			}
			_ = a.printLogs(ctx, client, logs, logStyle{json: how.json, names: names, seen: seen})
			return err
		}
	}
}

// takeDown stops what up started, and kills it when asked once more.
func (a *app) takeDown(ctx context.Context, client *ipc.Client, args ipc.UpArgs, interrupts <-chan os.Signal, how bootStyle) error {
	if !how.json {
		a.stderr.say("stopping; once more to kill\n")
	}
	how.lines, how.noTable = true, true
	down := func(force bool) <-chan error {
		ended := make(chan error, 1)
		go func() {
			last, err := follow(ctx, client, ipc.CallDown, ipc.DownArgs{Project: args.Project, Services: args.Services, Force: force}, a.view(how))
			if err == nil {
				err = a.conclude(last, how)
			}
			ended <- err
		}()
		return ended
	}
	ended := down(false)
	for {
		select {
		case err := <-ended:
			return err
		case sig := <-interrupts:
			if isEnd(sig) {
				ended = down(true)
			}
		}
	}
}

// isEnd reports whether a signal asks a program to end.
func isEnd(sig os.Signal) bool {
	return sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGHUP
}
