package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// outputLimit is how much of an Exec's output is kept.
const outputLimit = 64 << 10

// Exec runs a command in the container. When ctx ends Exec returns, but the
// command goes on: engines cannot end it.
func (i *instance) Exec(ctx context.Context, command []string) (runtime.Exit, []byte, error) {
	var out limited
	code, err := i.e.exec(ctx, i.id, execution{argv: command, stdout: &out, stderr: &out})
	if err != nil {
		return runtime.Exit{}, out.kept, err
	}
	return exitOf(code, time.Now()), out.kept, nil
}

// limited keeps the first outputLimit bytes.
type limited struct{ kept []byte }

func (l *limited) Write(b []byte) (int, error) {
	l.kept = append(l.kept, b[:min(len(b), outputLimit-len(l.kept))]...)
	return len(b), nil
}

// ExecTTY runs argv in a running container for somebody who sits at it, and
// returns how it ended. host is what Runtime.Host says; container its ID or
// name; env is added to the container's; dir may be empty. With tty the command
// has a terminal, whose size is set to each {rows, columns} that resize brings,
// and everything it writes comes on stdout; making the caller's own terminal
// raw is the caller's. stdin may be nil.
//
// A command that is not there gives 127 and one that cannot be executed 126,
// both with a *runtime.Fault of code command_missing. An engine or a container
// that is not there is an error with a code of its own, and exitCode 125.
func ExecTTY(ctx context.Context, host, container string, argv, env []string, dir string, tty bool,
	stdin io.Reader, stdout, stderr io.Writer, resize <-chan [2]uint,
) (exitCode int, err error) {
	e, err := dial(ctx, placeOf(host), nameAuto)
	if err != nil {
		return 125, err
	}
	defer e.close()
	return e.exec(ctx, container, execution{argv: argv, env: env, dir: dir, tty: tty, stdin: stdin, stdout: stdout, stderr: stderr, resize: resize})
}

// placeOf finds the place with a host again, for its certificates.
func placeOf(host string) place {
	for _, p := range placesFor(os.Getenv, nameAuto) {
		if p.host == host {
			return p
		}
	}
	return place{engine: engineOf(host), host: host, source: "usual place"}
}

// execution is one command in a container.
type execution struct {
	argv, env      []string
	dir            string
	tty            bool
	stdin          io.Reader
	stdout, stderr io.Writer
	resize         <-chan [2]uint
}

func (e *engine) exec(ctx context.Context, container string, x execution) (int, error) {
	const failed = 125
	id, stream, err := e.begin(ctx, container, x)
	if err != nil {
		if code, missing := e.missingProgram(x.argv, err.Error()); missing != nil {
			return code, missing
		}
		return failed, err
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, stream.Close)()
	complaint, err := e.converse(ctx, id, stream, x)
	if err != nil || ctx.Err() != nil {
		return failed, e.fault(ctx, "exec", errOr(err))
	}
	call, done := e.watched(ctx)
	defer done()
	ended, err := e.cli.ExecInspect(call, id, client.ExecInspectOptions{})
	if err != nil {
		return failed, e.fault(call, "exec", err)
	}
	if code, missing := e.missingProgram(x.argv, complaint); missing != nil {
		return code, missing
	}
	return ended.ExitCode, nil
}

// begin starts a command and returns its connection.
func (e *engine) begin(ctx context.Context, container string, x execution) (id string, stream client.HijackedResponse, err error) {
	ctx, done := e.watched(ctx)
	defer done()
	made, err := e.cli.ExecCreate(ctx, container, client.ExecCreateOptions{
		TTY: x.tty, AttachStdin: x.stdin != nil, AttachStdout: true, AttachStderr: true,
		Env: x.env, WorkingDir: x.dir, Cmd: x.argv,
	})
	switch {
	case e.notFound(err):
		return "", stream, kind{"no container " + short(container), runtime.ErrGone}
	case e.conflict(err):
		return "", stream, kind{"container " + short(container) + " is not running", runtime.ErrGone}
	case err != nil:
		return "", stream, e.fault(ctx, "exec", err)
	}
	attached, err := e.cli.ExecAttach(ctx, made.ID, client.ExecAttachOptions{TTY: x.tty})
	return made.ID, attached.HijackedResponse, e.fault(ctx, "exec", err)
}

// converse carries bytes both ways until the command closes its output. The
// engine writes its own complaints there too: such a one is returned and not
// passed on.
func (e *engine) converse(ctx context.Context, id string, stream client.HijackedResponse, x execution) (complaint string, err error) {
	if x.stdin != nil {
		// It ends with its source, which may be never: nobody waits for it.
		go func() {
			_, _ = io.Copy(stream.Conn, x.stdin)
			_ = stream.CloseWrite()
		}()
	}
	over := make(chan struct{})
	defer close(over)
	go e.resize(ctx, id, x.resize, over)
	out, errs := &sniffer{w: x.stdout, beginnings: e.dialect.complains}, &sniffer{w: x.stderr, beginnings: e.dialect.complains}
	if x.tty {
		_, err = io.Copy(out, stream.Reader)
	} else {
		_, err = stdcopy.StdCopy(out, errs, stream.Reader)
	}
	if err == nil {
		err = errors.Join(out.flush(), errs.flush())
	}
	return cmp.Or(out.complaint(), errs.complaint()), err
}

func (e *engine) resize(ctx context.Context, id string, sizes <-chan [2]uint, over <-chan struct{}) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			_, _ = e.cli.ExecResize(ctx, id, client.ExecResizeOptions{Height: size[0], Width: size[1]})
		case <-over:
			return
		}
	}
}

// sniffer holds back output that begins as a complaint of the engine.
type sniffer struct {
	w          io.Writer
	beginnings []string
	held       []byte
	passed     bool
}

func (s *sniffer) Write(b []byte) (int, error) {
	if s.passed {
		return s.w.Write(b)
	}
	s.held = append(s.held, b...)
	for _, beginning := range s.beginnings {
		n := min(len(s.held), len(beginning))
		if string(s.held[:n]) == beginning[:n] {
			return len(b), nil
		}
	}
	s.passed = true
	_, err := s.w.Write(s.held)
	return len(b), err
}

func (s *sniffer) complaint() string {
	for _, beginning := range s.beginnings {
		if !s.passed && strings.HasPrefix(string(s.held), beginning) {
			return string(s.held)
		}
	}
	return ""
}

func (s *sniffer) flush() error {
	if s.passed || len(s.held) == 0 || s.complaint() != "" {
		return nil
	}
	_, err := s.w.Write(s.held)
	return err
}

// missingProgram reads an engine's complaint about a command.
func (e *engine) missingProgram(argv []string, complaint string) (code int, err error) {
	fault := func(why string) error {
		return &runtime.Fault{Code: "command_missing", Err: fmt.Errorf("%s: %s in the container", argv[0], why)}
	}
	complains := func(beginning string) bool { return strings.Contains(complaint, beginning) }
	switch {
	case len(argv) == 0 || !slices.ContainsFunc(e.dialect.complains, complains):
		return 0, nil
	case strings.Contains(complaint, "not found"), strings.Contains(complaint, "no such file or directory"):
		return 127, fault("no such program")
	case strings.Contains(complaint, "permission denied"), strings.Contains(complaint, "exec format error"), strings.Contains(complaint, "is a directory"):
		return 126, fault("not executable")
	}
	return 126, errors.New(strings.TrimSpace(complaint))
}
