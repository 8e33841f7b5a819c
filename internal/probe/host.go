package probe

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/runtime"
)

// OnHost returns a Runner that runs commands on this host, in dir and with the
// environment env. Each leads a process group of its own, of which nothing is
// left when the command has ended or its time is up.
func OnHost(dir string, env []string) Runner {
	return func(ctx context.Context, command []string) (runtime.Exit, []byte, error) {
		if len(command) == 0 {
			return runtime.Exit{}, nil, errors.New("there is no command")
		}
		var output tail
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &output, &output
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		// What has left the group may hold the pipe for ever.
		cmd.WaitDelay = 100 * time.Millisecond
		if err := cmd.Start(); err != nil {
			return runtime.Exit{}, nil, err
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			awaitEnd(cmd.Process.Pid)
		}()
		select {
		case <-ended:
		case <-ctx.Done():
		}
		// The leader has not been reaped: its number is still the group's.
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		<-ended
		err := cmd.Wait()
		var failed *exec.ExitError
		if errors.As(err, &failed) || errors.Is(err, exec.ErrWaitDelay) {
			err = nil
		}
		return exitOf(cmd.ProcessState), output.bytes, err
	}
}

func exitOf(state *os.ProcessState) runtime.Exit {
	exit := runtime.Exit{Known: true, Code: state.ExitCode(), At: time.Now()}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		exit.Code, exit.Signal = 128+int(ws.Signal()), unix.SignalName(ws.Signal())
	}
	return exit
}

// tail keeps the end of what is written to it.
type tail struct{ bytes []byte }

func (t *tail) Write(p []byte) (int, error) {
	const kept = 4 << 10
	t.bytes = append(t.bytes, p[max(0, len(p)-kept):]...)
	if excess := len(t.bytes) - kept; excess > 0 {
		t.bytes = bytes.Clone(t.bytes[excess:])
	}
	return len(p), nil
}
