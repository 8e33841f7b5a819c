package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/ipc"
)

// runInOurs is runInContainer where the first process of the container is ours.
func (a *app) runInOurs(ctx context.Context, target ipc.Target, command []string, noTerminal bool) error {
	c := pid1.Command{Args: command, Env: target.Env, Workdir: target.Dir}
	in, tty := a.terminal()
	if tty = tty && !noTerminal; tty {
		columns, rows, err := term.GetSize(int(in.Fd()))
		if err != nil {
			return fmt.Errorf("the terminal: %w", err)
		}
		c.Terminal = &pid1.Size{Rows: uint16(rows), Columns: uint16(columns)}
	} else {
		c.Stdin, _ = a.stdin.(*os.File)
		c.Stdout, _ = a.stdout.to.(*os.File)
		c.Stderr, _ = a.stderr.to.(*os.File)
	}
	running, err := pid1.Exec(ctx, target.Host, c)
	if err != nil {
		return builtinFault(err)
	}
	if tty {
		restore, err := a.converse(in, running)
		if err != nil {
			return errors.Join(err, running.Close())
		}
		defer restore()
	}
	code, err := running.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Canceled
	case err != nil:
		return builtinFault(err)
	case code != 0:
		return exitStatus(code)
	}
	return nil
}

// builtinFault is an error of the room that makes containers, with the exit
// status that a shell would give it.
func builtinFault(err error) error {
	known, ok := errors.AsType[*pid1.Error](err)
	if !ok {
		return err
	}
	fault := &ipc.Error{Code: ipc.CodeInternal, Exit: known.ExitStatus(), Message: known.Error(), Hint: known.Hint}
	switch known.Kind {
	case pid1.NotFound, pid1.NotExecutable:
		fault.Code = ipc.CodeCommandMissing
	case pid1.Gone:
		fault.Code, fault.Exit = ipc.CodeExited, exitFailed
	}
	return fault
}

// converse carries bytes between our terminal, which it makes raw, and that of
// a command. The caller restores it, once all that came has been written.
func (a *app) converse(in *os.File, running *pid1.Running) (restore func(), err error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	sent, release := a.signals.claim()
	over, written := make(chan struct{}), make(chan struct{})
	go func() { _, _ = io.Copy(running.Terminal, in) }() // it ends with its source, which may be never
	go func() {
		defer close(written)
		_, _ = io.Copy(a.stdout, running.Terminal) // reading fails when the command has ended
	}()
	go func() {
		for {
			select {
			case sig := <-sent:
				a.pass(sig, in, running)
			case <-over:
				return
			}
		}
	}()
	return func() {
		<-written
		close(over)
		release()
		_ = term.Restore(int(in.Fd()), before)
	}, nil
}

// pass hands on the size of the terminal, and what is to end the command.
func (a *app) pass(sig os.Signal, in *os.File, running *pid1.Running) {
	if sig == syscall.SIGWINCH {
		if columns, rows, err := term.GetSize(int(in.Fd())); err == nil {
			size := &unix.Winsize{Row: uint16(rows), Col: uint16(columns)}
			_ = unix.IoctlSetWinsize(int(running.Terminal.Fd()), unix.TIOCSWINSZ, size)
		}
		return
	}
	if number, ok := sig.(syscall.Signal); ok && isEnd(sig) {
		_ = running.Signal(number)
	}
}
