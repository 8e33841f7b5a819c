package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/ipc"
)

// terminalTail is how many lines a terminal gets unless it asks for another
// number.
const terminalTail = 1000

// logsFlags are the flags of logs.
type logsFlags struct {
	args                            ipc.LogsArgs
	tail, since, until              string
	stream                          choice
	timestamps, noPrefix, raw, json bool
}

func (a *app) logs() *cobra.Command {
	flags := logsFlags{stream: choice{allowed: []string{"stdout", "stderr"}}}
	cmd := &cobra.Command{
		Use:   "logs [SERVICE...]",
		Short: "Show what services wrote",
		Long: `Shows what services wrote: on a terminal the last 1000 lines, otherwise all of
the current and the previous run.`,
		Example: `  locald logs -f
  locald logs --since 10m --grep error web
  locald logs --run previous web`,
		Args:              services(0, -1),
		ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runLogs(cmd, args, flags)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&flags.args.Follow, "follow", "f", false, "go on with what is written from here on")
	f.StringVarP(&flags.tail, "tail", "n", "", "the last N lines of each service, or all")
	f.StringVar(&flags.since, "since", "", "from a time on: 10m (ago), or 2026-11-23T10:00:00Z")
	f.StringVar(&flags.until, "until", "", "up to a time")
	f.Uint64Var(&flags.args.After, "after", 0, "lines after the one with this number")
	f.StringVar(&flags.args.Grep, "grep", "", "lines that match a regular expression")
	f.Var(&flags.stream, "stream", "only one of the streams")
	f.StringVar(&flags.args.Run, "run", "", "current, previous, or the number of a run")
	f.BoolVarP(&flags.timestamps, "timestamps", "t", false, "with the time of each line")
	f.BoolVar(&flags.noPrefix, "no-prefix", false, "without the service's name")
	f.BoolVar(&flags.raw, "raw", false, "the bytes as written, nothing added: what they tell the terminal, it does")
	f.BoolVar(&flags.json, "json", false, "one JSON object a line")
	return cmd
}

func (a *app) runLogs(cmd *cobra.Command, names []string, flags logsFlags) error {
	if err := exclusive(cmd, "raw", "json"); err != nil {
		return err
	}
	args, err := a.logsArgs(cmd, flags)
	if err != nil {
		return err
	}
	if args.Project, err = a.project(); err != nil {
		return err
	}
	args.Services = names
	client, err := a.connect(cmd.Context(), startAlways)
	if err != nil {
		return err
	}
	if flags.raw && len(names) == 1 {
		return a.copyLog(cmd.Context(), client, args)
	}
	style := logStyle{json: flags.json, raw: flags.raw, timestamps: flags.timestamps, noPrefix: flags.noPrefix}
	if !style.raw && !style.json && !style.noPrefix {
		style.names = a.names(cmd.Context(), client, args.Project, names)
	}
	return a.printLogs(cmd.Context(), client, args, style)
}

// logsArgs is what the flags ask for. Times that are given as ages are counted
// from here.
func (a *app) logsArgs(cmd *cobra.Command, flags logsFlags) (ipc.LogsArgs, error) {
	args := flags.args
	args.Stream = flags.stream.value
	args.Output = flags.raw
	args.Tail = -1
	_, _, terminal := a.stdout.terminal()
	asked := flags.tail != "" || flags.since != "" || flags.until != "" || args.After > 0 || args.Run != ""
	switch {
	case terminal:
		args.Tail = terminalTail
	case !asked:
		args.Run = "recent"
		return a.checkLogs(cmd, args)
	}
	switch n, err := strconv.Atoi(flags.tail); {
	case flags.tail == "":
	case flags.tail == "all":
		args.Tail = -1
	case err != nil || n < 0:
		return args, usage(cmd, "--tail %s: it is a number of lines, or all", flags.tail)
	default:
		args.Tail = n
	}
	var err error
	if args.Since, err = a.moment(flags.since); err != nil {
		return args, usage(cmd, "--since %v", err)
	}
	if args.Until, err = a.moment(flags.until); err != nil {
		return args, usage(cmd, "--until %v", err)
	}
	if n, err := strconv.Atoi(args.Run); args.Run != "" && args.Run != "current" && args.Run != "previous" && (err != nil || n < 1) {
		return args, usage(cmd, "--run %s: it is current, previous or a number", args.Run)
	}
	return a.checkLogs(cmd, args)
}

func (a *app) checkLogs(cmd *cobra.Command, args ipc.LogsArgs) (ipc.LogsArgs, error) {
	if _, err := regexp.Compile(args.Grep); err != nil {
		return args, usage(cmd, "--grep %v", err)
	}
	return args, nil
}

// moment is a time, given as such or as an age, in the form the daemon takes.
func (a *app) moment(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.Format(time.RFC3339Nano), nil
	}
	age, err := config.Duration(s)
	if err != nil {
		return "", fmt.Errorf("%s: it is an age like 10m, or a time like 2026-11-23T10:00:00Z", s)
	}
	return a.now().Add(-age).UTC().Format(time.RFC3339Nano), nil
}

// names are the services whose lines will come, so that all prefixes are of
// one width from the first line on. Knowing none costs no more than that.
func (a *app) names(ctx context.Context, client *ipc.Client, project ipc.Project, named []string) []string {
	if len(named) > 0 {
		return named
	}
	var status ipc.Status
	if err := client.Call(ctx, ipc.CallStatus, ipc.StatusArgs{Project: project}, &status); err != nil {
		return nil
	}
	var names []string
	for _, s := range status.Services {
		names = append(names, s.Name)
	}
	return names
}

// logStyle is how log lines are printed.
type logStyle struct {
	json, raw, timestamps, noPrefix bool
	names                           []string
	seen                            map[string]uint64 // the last number printed of each service; lines up to it are left out
}

// printLogs reads lines and prints them until the stream ends. Output is held
// back only while more is already here.
func (a *app) printLogs(ctx context.Context, client *ipc.Client, args ipc.LogsArgs, style logStyle) error {
	stream, err := client.Stream(ctx, ipc.CallLogs, args)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	out := bufio.NewWriterSize(a.stdout, 64<<10)
	printer := newLogPrinter(out, a.paint(a.stdout), style)
	for {
		var line ipc.LogLine
		err := stream.Next(&line)
		if err == nil && style.unseen(line) {
			printer.print(line, stream.Raw())
		}
		if err != nil || !stream.Buffered() {
			if flushErr := out.Flush(); flushErr != nil {
				return flushErr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyLog prints what one service wrote from where it is stored: nothing has to
// be done to it on the way. The daemon says where that is, and while it is
// followed whether there still is a daemon.
func (a *app) copyLog(ctx context.Context, client *ipc.Client, args ipc.LogsArgs) error {
	stream, err := client.Stream(ctx, ipc.CallStore, args)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	var store ipc.LogStore
	if err := stream.Next(&store); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(store.Dir))); err != nil {
		// The project's directory is there before any log: we do not see the
		// daemon's files, as in a container that only has its socket.
		return a.printLogs(ctx, client, args, logStyle{raw: true})
	}
	query := logs.Query{Tail: args.Tail, After: args.After, Stream: logs.Stream(args.Stream), FromRun: store.FromRun, ToRun: store.ToRun}
	query.Since, _ = time.Parse(time.RFC3339Nano, args.Since) // moment made them, or they are empty
	query.Until, _ = time.Parse(time.RFC3339Nano, args.Until)
	if args.Grep != "" {
		if query.Grep, err = regexp.Compile(args.Grep); err != nil {
			return err
		}
	}
	following, end := context.WithCancelCause(ctx)
	defer end(nil)
	if args.Follow {
		go func() { end(stream.Next(&ipc.LogStore{})) }()
	}
	if err := logs.OpenReader(store.Dir).Copy(following, query, args.Follow, a.stdout.to); err != nil {
		return err
	}
	if ctx.Err() == nil && !errors.Is(context.Cause(following), io.EOF) {
		return context.Cause(following)
	}
	return ctx.Err()
}

// unseen notes a line, and reports whether it is a further one.
func (s logStyle) unseen(l ipc.LogLine) bool {
	if s.seen == nil {
		return true
	}
	if last, ok := s.seen[l.Service]; ok && l.Seq <= last {
		return false
	}
	s.seen[l.Service] = l.Seq
	return true
}

// logPrinter writes log lines in one style.
type logPrinter struct {
	out   *bufio.Writer
	paint paint
	style logStyle
	hues  hue
	width int

	prefixes map[string]string // what stands before the lines of a service, for the width
}

func newLogPrinter(out *bufio.Writer, p paint, style logStyle) *logPrinter {
	lp := &logPrinter{out: out, paint: p, style: style}
	for _, name := range style.names {
		lp.hues.of(name)
		lp.width = max(lp.width, columnsOf(cell(name)))
	}
	return lp
}

// print writes one line; raw is the same as the daemon sent it. What goes wrong
// shows when the writer is flushed.
func (lp *logPrinter) print(l ipc.LogLine, raw []byte) {
	switch {
	case lp.style.json:
		_, _ = lp.out.Write(raw)
	case lp.style.raw:
		lp.printRaw(l)
	default:
		lp.printText(l)
	}
}

// printRaw writes what the service wrote and nothing else. A line that was cut
// goes on in the next one, and the last before an end may have had no newline.
func (lp *logPrinter) printRaw(l ipc.LogLine) {
	switch {
	case l.Stream != "stdout" && l.Stream != "stderr":
		return
	case len(l.B64) > 0:
		_, _ = lp.out.Write(l.B64)
	default:
		_, _ = lp.out.WriteString(l.Line)
	}
	if !l.Partial {
		_ = lp.out.WriteByte('\n')
	}
}

func (lp *logPrinter) printText(l ipc.LogLine) {
	if !lp.style.noPrefix {
		_, _ = lp.out.WriteString(lp.prefix(l.Service))
	}
	if lp.style.timestamps {
		_, _ = lp.out.WriteString(l.Time.UTC().Format("2006-01-02T15:04:05.000Z") + " ")
	}
	text := lineText(l)
	if l.Stream != "stdout" && l.Stream != "stderr" {
		text = lp.paint.as(dim, text)
	}
	_, _ = lp.out.WriteString(text)
	_ = lp.out.WriteByte('\n')
}

// prefix is "name │ ". A name that is wider than those before makes all later
// ones wider.
func (lp *logPrinter) prefix(service string) string {
	if text, ok := lp.prefixes[service]; ok {
		return text
	}
	name := cell(service)
	if w := columnsOf(name); w > lp.width || lp.prefixes == nil {
		lp.width = max(lp.width, w)
		lp.prefixes = map[string]string{}
	}
	text := lp.paint.as(lp.hues.of(service), pad(name, lp.width)+" │") + " "
	lp.prefixes[service] = text
	return text
}

// lineText is a log line made harmless. What locald itself has to say stands
// in brackets, so that nobody takes it for the service's words.
func lineText(l ipc.LogLine) string {
	switch l.Stream {
	case "gap":
		return "[" + gapText(l) + "]"
	case "event":
		return "[" + logs.Safe([]byte(l.Line)) + "]"
	}
	return logs.Safe([]byte(l.Line))
}

// gapText says how much is missing and why, as far as anybody knows.
func gapText(l ipc.LogLine) string {
	text := "output is missing here"
	if l.MissingBytes > 0 {
		text = fmt.Sprintf("%d bytes are missing here", l.MissingBytes)
	}
	if l.Line != "" {
		text += ": " + logs.Safe([]byte(l.Line))
	}
	return text
}
