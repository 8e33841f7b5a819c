package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/ipc"
)

// statusFlags are the flags of status.
type statusFlags struct {
	json, all, watch, history, check, reveal bool
}

func (a *app) status() *cobra.Command {
	var flags statusFlags
	cmd := &cobra.Command{
		Use:     "status [SERVICE...]",
		Aliases: []string{"ps"},
		Short:   "Show what runs where",
		Long: `Shows the project's services. When the daemon was killed while services were
wanted, it is started and restores them first. Exits with 3 when nothing is
wanted here.`,
		Example: `  locald status
  locald status --check      exits with 1 unless everything is ready
  locald status web --history
  locald status --all        every project`,
		Args:              services(0, -1),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exclusive(cmd, "all", "watch", "history", "check"); err != nil {
				return err
			}
			switch {
			case flags.all:
				return a.statusAll(cmd.Context(), flags)
			case flags.history:
				return a.statusHistory(cmd.Context(), args, flags)
			case flags.watch:
				return a.statusWatch(cmd.Context(), args, flags)
			}
			return a.statusOnce(cmd.Context(), args, flags)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&flags.json, "json", false, "print JSON")
	f.BoolVar(&flags.all, "all", false, "every project that locald knows")
	f.BoolVar(&flags.watch, "watch", false, "again with every change, until Ctrl-C")
	f.BoolVar(&flags.history, "history", false, "the last runs of each service")
	f.BoolVar(&flags.check, "check", false, "exit with 1 unless everything wanted is ready")
	f.BoolVar(&flags.reveal, "reveal", false, "show passwords")
	return cmd
}

func (a *app) statusOnce(ctx context.Context, names []string, flags statusFlags) error {
	project, err := a.recorded()
	if err != nil {
		return err
	}
	var status ipc.Status
	client, err := a.connect(ctx, startIfWanted)
	if err == nil {
		args := ipc.StatusArgs{Project: project, Services: names, Reveal: flags.reveal, Settle: true, Brief: !flags.json}
		err = client.Call(ctx, ipc.CallStatus, args, &status)
	}
	if errors.Is(err, ipc.ErrNoDaemon) {
		status, err = a.idleStatus(names)
	}
	if err != nil {
		return err
	}
	if flags.json {
		a.stdout.say(jsonLine(status))
	} else {
		a.stdout.say(a.statusText(status))
	}
	return a.verdict(status, flags)
}

// idleStatus is the status where no daemon runs and none is missing.
func (a *app) idleStatus(names []string) (ipc.Status, error) {
	project, err := a.load()
	if err != nil {
		return ipc.Status{}, err
	}
	status := ipc.Status{Version: 1, Project: ipc.ProjectName{Name: project.Name, Dir: project.Dir, Label: project.Name}, Services: []ipc.Service{}}
	if err := unknownAmong(names, project); err != nil {
		return status, err
	}
	for _, s := range project.Services {
		if len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		deps := []string{}
		for _, d := range s.DependsOn {
			deps = append(deps, d.Service)
		}
		status.Services = append(status.Services, ipc.Service{
			Name: s.Name, Type: s.Type, Desired: "down", State: "stopped", Health: "none", Ports: map[string]int{}, DependsOn: deps,
		})
	}
	return status, nil
}

// unknownAmong is the error for the first name that no service of a project has.
func unknownAmong(names []string, project *config.Project) error {
	for _, name := range names {
		if project.Service(name) == nil {
			return &ipc.Error{Code: ipc.CodeUnknownService, Service: name, Message: "no such service: " + name, Hint: project.Suggest(name)}
		}
	}
	return nil
}

// checkNames is unknownAmong for the project's file, if that can be read.
func (a *app) checkNames(names []string) error {
	project, err := a.load()
	if err != nil {
		return nil //nolint:nilerr // what is not wanted can be stopped without it
	}
	return unknownAmong(names, project)
}

// verdict is the exit status that a status asks for.
func (a *app) verdict(s ipc.Status, flags statusFlags) error {
	wanted, ready := 0, 0
	for _, svc := range s.Services {
		if svc.Desired != "up" {
			continue
		}
		wanted++
		if isReady(svc) {
			ready++
		}
	}
	switch {
	case wanted == 0:
		if !flags.json {
			a.stderr.say("locald: nothing is wanted here\nhint: locald up\n")
		}
		return exitStatus(exitNothing)
	case flags.check && ready < wanted:
		return exitStatus(exitFailed)
	}
	return nil
}

// isReady reports whether a service has come to where up waits for it.
func isReady(s ipc.Service) bool {
	switch s.State {
	case "completed":
		return true
	case "running":
		return s.Health == "none" || s.Health == "healthy" || s.Health == ""
	}
	return false
}

func (a *app) statusText(s ipc.Status) string {
	p := a.paint(a.stdout)
	columns, _, _ := a.stdout.terminal()
	t := newTable("NAME", "STATE", "URL", "PORTS", "RESTARTS", "SINCE", "REASON")
	for _, svc := range s.Services {
		row := t.row(svc.Name, stateText(svc), address(svc), portsText(svc.Ports), count(svc.Restarts), a.age(svc), svc.Reason)
		row[1].colour = p.state(shownState(svc))
	}
	if len(t.rows) == 0 {
		return ""
	}
	return t.text(p, columns)
}

// age is how long a service has been ready or, if it is not, has run.
func (a *app) age(s ipc.Service) string {
	since := s.ReadyAt
	if since == "" {
		since = s.StartedAt
	}
	if s.State != "running" && s.State != "starting" {
		return ""
	}
	at, err := time.Parse(time.RFC3339Nano, since)
	if err != nil {
		return ""
	}
	return coarse(a.now().Sub(at))
}

// coarse is a time in one unit.
func coarse(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// portsText is the named ports, in the order of their names.
func portsText(ports map[string]int) string {
	words := make([]string, 0, len(ports))
	for _, name := range sortedKeys(ports) {
		words = append(words, name+"="+strconv.Itoa(ports[name]))
	}
	return strings.Join(words, " ")
}

func (a *app) statusWatch(ctx context.Context, names []string, flags statusFlags) error {
	project, err := a.project()
	if err != nil {
		return err
	}
	client, err := a.connect(ctx, startAlways)
	if err != nil {
		return err
	}
	stream, err := client.Stream(ctx, ipc.CallWatch, ipc.StatusArgs{Project: project, Services: names, Reveal: flags.reveal})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	board := repaint{out: a.stdout, live: a.live(a.stdout)}
	for {
		var status ipc.Status
		err := stream.Next(&status)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case flags.json:
			a.stdout.say(jsonLine(status))
		default:
			board.show(a.statusText(status))
		}
	}
}

// repaint puts each text in the place of the one before, or below it where
// nothing is repainted.
type repaint struct {
	out   *output
	live  bool
	drawn []int // columns of each line on the screen
}

func (r *repaint) show(text string) {
	columns, rows, _ := r.out.terminal()
	if !r.live {
		if r.drawn != nil {
			r.out.say("\n")
		}
		r.drawn = []int{}
		r.out.say(text)
		return
	}
	up := ""
	if n := rowsOf(r.drawn, columns); n > 0 {
		up = fmt.Sprintf("\r\x1b[%dA\x1b[J", n)
	}
	// What has scrolled off the top cannot be painted again.
	r.drawn = r.drawn[:0]
	kept := 0
	for line := range strings.Lines(text) {
		width := columnsOf(withoutColours(line))
		if rowsOf(append(r.drawn, width), columns) >= rows {
			break
		}
		r.drawn = append(r.drawn, width)
		kept += len(line)
	}
	r.out.say(up + text[:kept])
}

func (a *app) statusHistory(ctx context.Context, names []string, flags statusFlags) error {
	project, err := a.recorded()
	if err != nil {
		return err
	}
	client, err := a.connect(ctx, startAlways)
	if err != nil {
		return err
	}
	var history ipc.History
	if err := client.Call(ctx, ipc.CallHistory, ipc.HistoryArgs{Project: project, Services: names}, &history); err != nil {
		return err
	}
	if flags.json {
		a.stdout.say(jsonLine(history))
		return nil
	}
	columns, _, _ := a.stdout.terminal()
	t := newTable("NAME", "RUN", "STARTED", "READY AFTER", "LASTED", "EXIT", "REASON")
	for _, r := range history.Runs {
		t.row(r.Service, strconv.Itoa(r.Run), a.shortTime(r.Start), between(r.Start, r.Ready), between(r.Start, r.End), exitText(r), r.Reason)
	}
	if len(t.rows) == 0 {
		a.stdout.say("there was no run yet\n")
		return nil
	}
	a.stdout.say(t.text(a.paint(a.stdout), columns))
	return nil
}

func exitText(r ipc.Run) string {
	switch {
	case r.Signal != "":
		return r.Signal
	case r.ExitCode != nil:
		return strconv.Itoa(*r.ExitCode)
	}
	return ""
}

// shortTime is a time without its fractions, in the zone of the clock.
func (a *app) shortTime(s string) string {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return s
	}
	return at.In(a.now().Location()).Format(time.DateTime)
}

// between is the time from one moment to another, if both are known.
func between(from, to string) string {
	begin, err1 := time.Parse(time.RFC3339Nano, from)
	end, err2 := time.Parse(time.RFC3339Nano, to)
	if err1 != nil || err2 != nil {
		return ""
	}
	return elapsed(end.Sub(begin))
}

func (a *app) statusAll(ctx context.Context, flags statusFlags) error {
	client, err := a.connect(ctx, startAlways)
	if err != nil {
		return err
	}
	var all ipc.Projects
	if err := client.Call(ctx, ipc.CallList, ipc.NoArgs{}, &all); err != nil {
		return err
	}
	wanted, stray := 0, ""
	t := newTable("PROJECT", "READY", "FAILED", "USED", "DIRECTORY")
	for _, p := range all.Projects {
		wanted += p.Wanted
		name, dir := p.Label, p.Dir
		if name == "" {
			name = p.Name
		}
		if p.Missing {
			dir += " (gone)"
			if p.Wanted > 0 {
				stray = p.Dir
			}
		}
		t.row(name, fmt.Sprintf("%d/%d", p.Ready, p.Wanted), count(p.Failed), coarse(a.now().Sub(p.UsedAt)), dir)
	}
	switch {
	case flags.json:
		a.stdout.say(jsonLine(all))
	case len(t.rows) > 0:
		a.stdout.say(t.text(a.paint(a.stdout), 0))
		if stray != "" {
			a.stderr.say("hint: locald -C " + safe(stray) + " down\n")
		}
	}
	if wanted == 0 {
		if !flags.json {
			a.stderr.say("locald: nothing is wanted in any project\nhint: locald up\n")
		}
		return exitStatus(exitNothing)
	}
	return nil
}
