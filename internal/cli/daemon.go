package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

// pingTimeout is how long a daemon that listens may take to answer.
const pingTimeout = 10 * time.Second

// When a command starts the daemon that it does not find.
type starting int

const (
	startNever    starting = iota
	startIfWanted          // when services are on record that should be up
	startAlways
)

// places is where the daemon that is meant keeps things.
func (a *app) places() (state.Places, error) {
	return state.Locate(a.getenv, a.global.sandbox)
}

// connect is a client of the daemon, which is started when none runs and the
// command wants one. Otherwise the error is ipc.ErrNoDaemon.
func (a *app) connect(ctx context.Context, when starting) (*ipc.Client, error) {
	places, err := a.places()
	if err != nil {
		if fault := faultOf(err); fault.Code == ipc.CodeInvalidRequest {
			return nil, fault
		}
		return nil, unavailable(err)
	}
	client, err := ipc.Open(ctx, places.Socket)
	if errors.Is(err, ipc.ErrNoDaemon) {
		if when == startNever || (when == startIfWanted && !state.Wanted(places)) {
			return nil, err
		}
		client, _, err = a.launch(ctx, places)
	}
	if err != nil {
		return nil, err
	}
	client.Doubt = func(ctx context.Context) error {
		_, err := ping(ctx, &ipc.Client{Socket: client.Socket})
		return err
	}
	client.Revive = func(ctx context.Context) (*ipc.Client, error) { return a.connect(ctx, when) }
	return client, nil
}

// ping asks the daemon who it is. A daemon that listens but does not answer is
// an error of its own; one that ends while it answers is as good as none.
func ping(ctx context.Context, client *ipc.Client) (ipc.Daemon, error) {
	limited, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var d ipc.Daemon
	err := client.Call(limited, ipc.CallPing, nil, &d)
	if errors.Is(err, ipc.ErrCut) {
		err = client.Call(limited, ipc.CallPing, nil, &d)
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = &ipc.Error{
			Code:    ipc.CodeDaemonUnavailable,
			Message: fmt.Sprintf("the daemon at %s does not answer within %v", client.Socket, pingTimeout),
			Hint:    "locald server restart",
		}
	}
	return d, err
}

// launch starts a daemon, unless somebody else was faster. It returns once the
// daemon can be called. started says whether it was this call that started it. What
// stands in the way is an error with exit status 125.
func (a *app) launch(ctx context.Context, places state.Places) (client *ipc.Client, started bool, err error) {
	defer func() { err = unavailable(err) }()
	if err := places.Make(); err != nil {
		return nil, false, err
	}
	unlock, err := a.startLock(ctx, places)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	// Whoever held the lock before may have started one, at a place that it
	// wrote down.
	if places, err = a.places(); err != nil {
		return nil, false, err
	}
	if client, err = ipc.Open(ctx, places.Socket); !errors.Is(err, ipc.ErrNoDaemon) {
		return client, false, err
	}
	if err := a.spawn(ctx, places); err != nil {
		return nil, false, err
	}
	client, err = a.find(ctx)
	return client, true, err
}

// comesBack is how long a daemon whose socket was removed has to make it again.
const comesBack = 3 * time.Second

// find is a client of the daemon that is known to run.
func (a *app) find(ctx context.Context) (*ipc.Client, error) {
	for deadline := time.Now().Add(comesBack); ; {
		places, err := a.places()
		if err != nil {
			return nil, err
		}
		client, err := ipc.Open(ctx, places.Socket)
		if !errors.Is(err, ipc.ErrNoDaemon) || time.Now().After(deadline) {
			return client, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// unavailable gives an error the exit status of a daemon that could not be
// reached or started. An interrupted command stays one.
func unavailable(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	fault := *faultOf(err)
	fault.Exit = exitUnavailable
	return &fault
}

// startLock makes clients that find no daemon at the same time start one after
// the other.
func (a *app) startLock(ctx context.Context, places state.Places) (unlock func(), err error) {
	path := filepath.Join(places.Dir, "starting.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, pathFault(err)
	}
	locked := make(chan error, 1)
	go func() {
		for {
			err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
			if !errors.Is(err, syscall.EINTR) {
				locked <- err
				return
			}
		}
	}()
	select {
	case err := <-locked:
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return func() { _ = f.Close() }, nil
	case <-ctx.Done():
		// The file stays open: the goroutine still waits on it, and both end
		// with the process.
		return nil, ctx.Err()
	}
}

// pathFault is a failed file operation with the code that fits it.
func pathFault(err error) error {
	code := ipc.CodeInternal
	switch {
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ELOOP):
		code = ipc.CodePermissionDenied
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		code = ipc.CodeDiskFull
	}
	return &ipc.Error{Code: code, Message: err.Error()}
}

// readiness is the line that a daemon writes when it has started, or cannot.
type readiness struct {
	OK    bool       `json:"ok,omitempty"`
	Error *ipc.Error `json:"error,omitempty"`
}

// spawn starts a daemon in a session of its own and waits until it is ready.
func (a *app) spawn(ctx context.Context, places state.Places) error {
	self, err := executable()
	if err != nil {
		return err
	}
	log, err := openLog(places.Log)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return pathFault(err)
	}
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = ready.Close() }()
	// Not exec.CommandContext: the daemon outlives this command.
	cmd := exec.Command(self, "server", "start", "--ready-fd", "3")
	cmd.Args[0] = "locald"
	if a.global.sandbox != "" {
		cmd.Args = append(cmd.Args, "--sandbox", a.global.sandbox)
	}
	cmd.Env = daemonEnviron(a.environ, places)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	// A command that goes on for long must not leave a zombie.
	go func() { _ = cmd.Wait() }()

	defer context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })()
	text, err := bufio.NewReader(io.LimitReader(ready, ipc.MaxRequest)).ReadBytes('\n')
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var said readiness
	if err != nil || json.Unmarshal(text, &said) != nil || (!said.OK && said.Error == nil) {
		return &ipc.Error{
			Code:    ipc.CodeDaemonUnavailable,
			Message: "the daemon ended before it was ready" + lastWords(places.Log, before),
			Hint:    "locald server start",
		}
	}
	if said.Error != nil {
		return said.Error
	}
	return nil
}

// executable is this program's file. It may have been replaced since it was
// started; the kernel still has the one that runs.
func executable() (string, error) {
	path, err := os.Executable()
	if err == nil {
		_, err = os.Stat(path)
	}
	if err == nil {
		return path, nil
	}
	const running = "/proc/self/exe"
	if _, statErr := os.Stat(running); statErr == nil {
		return running, nil
	}
	return "", fmt.Errorf("find locald's own file: %w", err)
}

// daemonEnviron is the environment of a daemon: this command's, without what
// is meant for this command or for the service that it runs in. Only
// pid1.UsersVariable is for the daemon.
func daemonEnviron(environ []string, places state.Places) []string {
	env := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		return strings.HasPrefix(v, "LOCALD_") && !strings.HasPrefix(v, pid1.UsersVariable+"=") || strings.HasPrefix(v, "NOTIFY_SOCKET=")
	})
	return append(env, places.Env()...)
}

// openLog opens the daemon's log for appending. What stands at its path must
// be a file of our own: /tmp is open to everybody.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, pathFault(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, foreignLog(path, "is a symbolic link")
	}
	if err != nil {
		return nil, pathFault(fmt.Errorf("the daemon's log: %w", err))
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, pathFault(err)
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	why := ""
	switch {
	case !info.Mode().IsRegular():
		why = "is not a regular file"
	case !ok || int(sys.Uid) != os.Getuid():
		why = "belongs to another user"
	case sys.Nlink > 1:
		why = "has a second name"
	}
	if why != "" {
		_ = f.Close()
		return nil, foreignLog(path, why)
	}
	if info.Mode().Perm() != 0o600 {
		if err := f.Chmod(0o600); err != nil {
			_ = f.Close()
			return nil, pathFault(err)
		}
	}
	return f, nil
}

func foreignLog(path, why string) error {
	return &ipc.Error{
		Code:    ipc.CodePermissionDenied,
		Message: fmt.Sprintf("the daemon's log %s %s", path, why),
		Hint:    "rm " + path,
	}
}

// lastWords is the end of what was written to the log from offset on.
func lastWords(path string, offset int64) string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const most = 16 << 10
	if size, err := f.Seek(0, io.SeekEnd); err == nil && size-offset > most {
		offset = size - most
	}
	text := make([]byte, most)
	n, err := f.ReadAt(text, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(text[:n]), []byte("\n"))
	if len(lines) > 20 {
		lines = lines[len(lines)-20:]
	}
	words := string(bytes.Join(lines, []byte("\n  ")))
	if words == "" {
		return ""
	}
	return "; it wrote:\n  " + words
}
