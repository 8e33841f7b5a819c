package cli

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) down() *cobra.Command {
	var volumes, verify, asJSON bool
	cmd := &cobra.Command{
		Use:   "down [SERVICE...]",
		Short: "Stop services, those that depend on others first",
		Long: `Stops the services that are named, or all. Services that depend on a named
one are stopped before it. They stay stopped until the next up or start. Succeeds
only when nothing that was started is left; what could not be stopped is named.

With --verify it also lists what is there afterwards: what is kept on purpose,
with what removes it, and what should not be there, which makes it fail.`,
		Example: `  locald down
  locald down db             db, and before it what depends on it
  locald down -v db          and delete db's data
  locald down --verify       and list what is still there`,
		Args:              services(0, -1),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			project, err := a.recorded()
			if err != nil {
				return err
			}
			down := ipc.DownArgs{Project: project, Services: args, Volumes: volumes, Verify: verify}
			return a.end(cmd, lowering{
				call: ipc.CallDown, args: down, json: asJSON, verify: verify,
				of: ipc.LeftArgs{Project: project, Services: args, Volumes: volumes},
			})
		},
	}
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "delete the services' data too, but never a directory of yours")
	cmd.Flags().BoolVar(&verify, "verify", false, "list what is still there, and fail when something should not be")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print events as JSON, one a line")
	return cmd
}

// lowering is a call that stops services.
type lowering struct {
	call   string
	args   any
	of     ipc.LeftArgs // what it is about
	json   bool
	verify bool
}

// end makes a call that stops services. Where no daemon runs there may still be
// something to end: what it left behind when it was killed. Data is only where
// a daemon is.
func (a *app) end(cmd *cobra.Command, l lowering) error {
	when := startIfWanted
	if l.of.Volumes {
		when = startAlways
	}
	client, err := a.connect(cmd.Context(), when)
	var found ipc.Leftovers
	if errors.Is(err, ipc.ErrNoDaemon) {
		if found, err = a.leftWithoutDaemon(cmd.Context(), l.of); err != nil {
			return err
		}
		if !runs(found) {
			if err := a.checkNames(l.of.Services); err != nil {
				return err
			}
			return a.concludeIdle(l, found)
		}
		client, err = a.connect(cmd.Context(), startAlways) // which ends it
	}
	if err != nil {
		return err
	}
	how := bootStyle{json: l.json, lines: true, noTable: true}
	last, err := follow(cmd.Context(), client, l.call, l.args, a.view(how))
	if err != nil {
		return err
	}
	if last.Leftovers != nil && !l.json {
		a.stdout.say(verifiedText(*last.Leftovers, a.paint(a.stdout)))
	}
	return a.conclude(last, how)
}

// runs reports whether something is left that a daemon has to end, or that
// nobody could look for.
func runs(found ipc.Leftovers) bool {
	return slices.ContainsFunc(found.Unwanted(), func(t ipc.Thing) bool { return t.Kind != "file" && t.Kind != "volume" })
}

// concludeIdle ends a command that had nothing to stop.
func (a *app) concludeIdle(l lowering, found ipc.Leftovers) error {
	zero := 0
	last := ipc.Event{Time: a.now(), Event: ipc.EventDone, Exit: &zero}
	if l.verify {
		last = last.Verified(found)
	}
	switch {
	case l.json:
		a.stdout.say(jsonLine(last))
	case l.verify:
		a.stdout.say(verifiedText(found, a.paint(a.stdout)))
	}
	return a.conclude(ending{Event: last}, bootStyle{json: l.json, noTable: true})
}
