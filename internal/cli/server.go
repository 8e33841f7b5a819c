package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

func (a *app) server() *cobra.Command {
	return group(&cobra.Command{
		Use:   "server",
		Short: "The daemon that keeps the services",
		Long: `The daemon that keeps the services. Commands start it when they need it, so
these are only for when it is to run in the foreground, or not at all.`,
	}, a.serverStart(), a.serverStop(), a.serverRestart(), a.serverStatus(), a.serverLogs())
}

func (a *app) serverStart() *cobra.Command {
	var daemonize bool
	var readyFD int
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Run the daemon",
		Long: `Runs the daemon in the foreground, with its log on the terminal, until SIGINT or
SIGTERM; services are then stopped and remembered as wanted. With --daemonize it
detaches itself, and the command ends when the daemon is ready.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			places, err := a.places()
			if err != nil {
				return err
			}
			if daemonize {
				return a.daemonize(cmd.Context(), places)
			}
			return a.serve(cmd.Context(), places, readyFD)
		},
	}
	cmd.Flags().BoolVar(&daemonize, "daemonize", false, "detach, write a PID file, and log to the log file")
	cmd.Flags().IntVar(&readyFD, "ready-fd", 0, "")
	_ = cmd.Flags().MarkHidden("ready-fd") // the flag was defined in the line above
	return cmd
}

// daemonize starts the daemon as every command does that needs it.
func (a *app) daemonize(ctx context.Context, places state.Places) error {
	client, started, err := a.launch(ctx, places)
	if err != nil {
		return err
	}
	d, err := ping(ctx, client)
	if errors.Is(err, ipc.ErrNoDaemon) || errors.Is(err, ipc.ErrCut) { // one that was ending took the connection
		if client, started, err = a.launch(ctx, places); err == nil {
			d, err = ping(ctx, client)
		}
	}
	if err != nil {
		return err
	}
	word := "already running"
	if started {
		word = "running"
	}
	a.stdout.say(fmt.Sprintf("%s (process %d, %s)\n", word, d.PID, client.Socket))
	return nil
}

// serve is the daemon itself.
func (a *app) serve(ctx context.Context, places state.Places, readyFD int) error {
	o := ServeOptions{Places: places, Version: a.hooks.Version, Foreground: readyFD == 0}
	if readyFD > 2 {
		// What the daemon starts must not keep the pipe open.
		syscall.CloseOnExec(readyFD)
		o.Ready = os.NewFile(uintptr(readyFD), "ready")
	}
	<-a.signals.listens // it is asked to end by them
	err := a.hooks.Serve(ctx, o)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // that is how it is asked to end
	}
	running := errors.Is(err, state.ErrLocked)
	if o.Ready != nil {
		said := readiness{OK: running}
		if err != nil && !running {
			said.Error = faultOf(err)
		}
		// Nobody listens any more when the daemon was ready once.
		_, _ = o.Ready.WriteString(jsonLine(said))
		_ = o.Ready.Close()
	}
	if running {
		a.stdout.say("already running\n")
		return nil
	}
	return unavailable(err)
}

func (a *app) serverStop() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop all services and the daemon",
		Long: `Stops the services of all projects, and then the daemon. It remembers which
services are wanted, and starts them when it is started again.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stopped, err := a.stopServer(cmd.Context(), asJSON)
			if err == nil && !stopped && !asJSON {
				a.stdout.say("not running\n")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print events as JSON, one a line")
	return cmd
}

// stopServer stops the daemon and returns when its process is gone. stopped is
// false when there was none.
func (a *app) stopServer(ctx context.Context, asJSON bool) (stopped bool, err error) {
	places, err := a.places()
	if err != nil {
		return false, err
	}
	client := &ipc.Client{Socket: places.Socket}
	pid, err := client.PeerPID(ctx)
	if errors.Is(err, ipc.ErrNoDaemon) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// Held from here on, the process cannot be mistaken for a later one with
	// its number; that it still answers below says that it was the right one.
	process, err := watchProcess(pid)
	if err != nil {
		return false, fmt.Errorf("process %d of the daemon: %w", pid, err)
	}
	defer process.close()
	if _, err := ping(ctx, client); isUnanswered(err) {
		a.stderr.say("locald: " + safe(err.Error()) + ": ending it\n")
		return true, process.end(ctx)
	}
	how := bootStyle{json: asJSON, lines: true, noTable: true}
	last, err := follow(ctx, client, ipc.CallStopAll, ipc.NoArgs{}, a.view(how))
	var fault *ipc.Error
	switch {
	case errors.As(err, &fault) && fault.Code == ipc.CodeVersionMismatch:
		// A daemon that speaks another protocol understands this.
		err = process.signal(syscall.SIGTERM)
	case err == nil:
		err = a.conclude(last, how)
	}
	if err != nil {
		return true, err
	}
	return true, process.wait(ctx)
}

// isUnanswered reports whether a daemon is there that does not answer.
func isUnanswered(err error) bool {
	var fault *ipc.Error
	return errors.As(err, &fault) && fault.Code == ipc.CodeDaemonUnavailable
}

// endTimeout is how long a daemon that does not answer may take to end by
// itself.
const endTimeout = 10 * time.Second

// end asks the process to end, makes it end when it does not, and returns when
// it is gone.
func (p *process) end(ctx context.Context) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if err := p.wait(limited); err == nil || ctx.Err() != nil {
		return err
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	return p.wait(ctx)
}

func (a *app) serverRestart() *cobra.Command {
	return &cobra.Command{
		Use:   "restart",
		Short: "Stop the daemon and start it again, with the services that are wanted",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := a.stopServer(cmd.Context(), false); err != nil {
				return err
			}
			places, err := a.places()
			if err != nil {
				return err
			}
			return a.daemonize(cmd.Context(), places)
		},
	}
}

func (a *app) serverStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether the daemon runs, and where it keeps things",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			places, err := a.places()
			if err != nil {
				return err
			}
			d, err := ping(cmd.Context(), &ipc.Client{Socket: places.Socket})
			absent := errors.Is(err, ipc.ErrNoDaemon)
			if absent {
				d = ipc.Daemon{State: places.Dir, Socket: places.Socket, Log: places.Log}
			} else if err != nil {
				return err
			}
			if asJSON {
				a.stdout.say(jsonLine(d))
			} else {
				a.stdout.say(a.serverText(d))
			}
			if absent {
				return exitStatus(exitFailed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) serverText(d ipc.Daemon) string {
	p := a.paint(a.stdout)
	var b bytes.Buffer
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s %s\n", p.as(bold, pad(name, 9)), cell(value))
		}
	}
	if d.PID == 0 {
		line("daemon", "not running")
	} else {
		line("daemon", "running")
		line("process", strconv.Itoa(d.PID))
		line("version", d.Version)
		if began, err := time.Parse(time.RFC3339Nano, d.StartedAt); err == nil {
			line("since", began.In(a.now().Location()).Format(time.DateTime)+" ("+coarse(a.now().Sub(began))+")")
		}
		line("services", strconv.Itoa(d.Wanted)+" wanted")
	}
	line("socket", d.Socket)
	line("state", d.State)
	line("log", d.Log)
	return b.String()
}

func (a *app) serverLogs() *cobra.Command {
	var follow bool
	var last string
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show the daemon's own log",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lines := -1
			if n, err := strconv.Atoi(last); err == nil && n >= 0 {
				lines = n
			} else if last != "all" {
				return usage(cmd, "--tail %s: it is a number of lines, or all", last)
			}
			places, err := a.places()
			if err != nil {
				return err
			}
			return a.daemonLog(cmd.Context(), places.Log, lines, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from here on")
	cmd.Flags().StringVarP(&last, "tail", "n", "1000", "the last N lines, or all")
	return cmd
}

// daemonLog prints the daemon's log file.
func (a *app) daemonLog(ctx context.Context, path string, count int, follow bool) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return &ipc.Error{Code: ipc.CodeDaemonUnavailable, Exit: exitFailed, Message: "there is no log at " + path, Hint: "locald server start --daemonize"}
	}
	if err != nil {
		return pathFault(err)
	}
	defer func() { _ = f.Close() }() // f may be another file by then
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return foreignLog(path, "is not a regular file")
	}
	if err := seekLines(f, count); err != nil {
		return pathFault(err)
	}
	lines := tail{out: a.stdout}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := lines.copy(f); err != nil {
			return pathFault(err)
		}
		if !follow {
			lines.end()
			return nil
		}
		if next := replaced(f, path); next != nil {
			_ = f.Close()
			f = next
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// tail prints whole lines of a file that grows.
type tail struct {
	out  *output
	rest []byte // of a line that is not whole yet
}

// copy prints what there is up to the end of the file.
func (t *tail) copy(f *os.File) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		t.rest = append(t.rest, buf[:n]...)
		if end := bytes.LastIndexByte(t.rest, '\n'); end >= 0 {
			t.out.say(safe(string(t.rest[:end])) + "\n")
			t.rest = append(t.rest[:0], t.rest[end+1:]...)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end prints a last line that has no newline.
func (t *tail) end() {
	if len(t.rest) > 0 {
		t.out.say(safe(string(t.rest)) + "\n")
	}
}

// replaced is the file at path when it is another one than f: the log was
// rotated.
func replaced(f *os.File, path string) *os.File {
	held, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	if err1 != nil || err2 != nil || os.SameFile(held, there) || !there.Mode().IsRegular() {
		return nil
	}
	next, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	return next
}

// seekLines moves to the beginning of the last n lines; a negative n is all.
func seekLines(f *os.File, n int) error {
	if n < 0 {
		return nil
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for at := end; at > 0; {
		size := min(int64(len(buf)), at)
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || at+i == end-1 {
				continue
			}
			if n--; n <= 0 {
				_, err := f.Seek(at+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}
