package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/ipc"
)

// runHere runs a command as a child of this one, with our standard streams,
// and ends as it does. Signals that reach only us are passed on.
func (a *app) runHere(target ipc.Target, command []string, noTerminal bool) error {
	if info, err := os.Stat(target.Dir); err != nil || !info.IsDir() {
		return &ipc.Error{Code: ipc.CodeWorkdirMissing, Message: target.Dir + " is not a directory", Hint: "mkdir -p " + target.Dir}
	}
	path, err := lookPath(command[0], target.Dir, target.Env)
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{Path: path, Args: command, Env: target.Env, Dir: target.Dir}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout.to, a.stderr.to
	if noTerminal {
		cmd.Stdout, cmd.Stderr = justWriter{a.stdout.to}, justWriter{a.stderr.to}
		// What the command leaves behind may hold the pipes for as long as it
		// likes.
		cmd.WaitDelay = time.Second
		if err := feed(cmd, a.stdin); err != nil {
			return err
		}
	}
	sent, release := a.signals.claim()
	defer release()
	if err := cmd.Start(); err != nil {
		if errors.Is(err, syscall.ENOENT) {
			err = errors.New("the interpreter that its first line names is missing")
		}
		return notStarted(command[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return childStatus(command[0], err)
		case sig := <-sent:
			if !fromTerminal(sig) {
				_ = cmd.Process.Signal(sig) // that it has just ended is seen next
			}
		}
	}
}

// justWriter hides that a writer is a file, so that a child gets a pipe.
type justWriter struct{ io.Writer }

// feed copies in to the child through a pipe. Nobody waits for the copying:
// reading from a terminal that stays silent ends with the process only.
func feed(cmd *exec.Cmd, in io.Reader) error {
	cmd.Stdin = nil
	if in == nil {
		return nil
	}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(pipe, in)
		_ = pipe.Close()
	}()
	return nil
}

// fromTerminal reports whether a signal is one that the terminal sends to the
// child as well: both are in its foreground group.
func fromTerminal(sig os.Signal) bool {
	if sig != syscall.SIGINT && sig != syscall.SIGQUIT && sig != syscall.SIGWINCH {
		return false
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer func() { _ = tty.Close() }()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

// lookPath finds a program in the directory and the PATH that it is to run
// with. Its errors have the exit status that a shell gives them.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if err := runnable(path); err != nil {
			return "", notStarted(name, err)
		}
		return path, nil
	}
	var found error
	for _, place := range filepath.SplitList(pathOf(env)) {
		if !filepath.IsAbs(place) {
			place = filepath.Join(dir, place)
		}
		path := filepath.Join(place, name)
		err := runnable(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) && found == nil {
			found = err
		}
	}
	if found != nil {
		return "", notStarted(name, found)
	}
	return "", notStarted(name, exec.ErrNotFound)
}

// pathOf is the last PATH of an environment, or where a shell looks without
// one.
func pathOf(env []string) string {
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			path = value
		}
	}
	return path
}

func runnable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return &os.PathError{Op: "exec", Path: path, Err: syscall.EISDIR}
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return &os.PathError{Op: "exec", Path: path, Err: err}
	}
	return nil
}

// notStarted is the error of a command that could not be started: 127 when it
// is not there, 126 when it is.
func notStarted(name string, err error) error {
	fault := &ipc.Error{Code: ipc.CodeCommandMissing, Exit: exitNoExec, Message: fmt.Sprintf("%s: %v", name, err)}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, exec.ErrNotFound) {
		fault.Exit = exitNotFound
	}
	return fault
}

// childStatus is how a child ended, as our own end.
func childStatus(name string, err error) error {
	var ended *exec.ExitError
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return nil
	case !errors.As(err, &ended):
		return fmt.Errorf("%s: %w", name, err)
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitStatus(128 + int(status.Signal()))
	}
	return exitStatus(ended.ExitCode())
}

// runInContainer runs a command in a container, with a terminal of its own
// when we have one.
func (a *app) runInContainer(ctx context.Context, target ipc.Target, command []string, noTerminal bool) error {
	if target.Engine == "builtin" || target.Engine == "containerd" {
		return a.runInOurs(ctx, target, command, noTerminal)
	}
	places, err := a.places()
	if err != nil {
		return err
	}
	in, tty := a.terminal()
	tty = tty && !noTerminal
	if tty {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("the terminal: %w", err)
		}
		defer func() { _ = term.Restore(int(in.Fd()), before) }()
		sent, release := a.signals.claim()
		defer release()
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go endOn(ctx, cancel, sent)
	}
	code, err := engines.Exec(ctx, places.Dir, engines.Execution{
		Host: target.Host, Container: target.Container, Argv: command, Env: target.Env, Dir: target.Dir, Terminal: tty,
	}, a.stdin, a.stdout.to, a.stderr.to)
	if err != nil {
		if ctx.Err() != nil {
			return context.Canceled
		}
		fault := *faultOf(err)
		fault.Exit = code
		return &fault
	}
	if code != 0 {
		return exitStatus(code)
	}
	return nil
}

// terminal is our standard input when that is a terminal.
func (a *app) terminal() (in *os.File, ok bool) {
	in, ok = a.stdin.(*os.File)
	return in, ok && term.IsTerminal(int(in.Fd()))
}

// endOn calls end when a signal asks to end, until ctx does.
func endOn(ctx context.Context, end func(), signals <-chan os.Signal) {
	for {
		select {
		case sig := <-signals:
			if isEnd(sig) {
				end()
			}
		case <-ctx.Done():
			return
		}
	}
}
