package pid1

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// controlName is the socket on which the inner process takes commands.
const controlName = "control"

// commandRequest is what is sent first. With it come those of the three
// descriptors that Given names.
type commandRequest struct {
	Args     []byte  `json:"args"` // separated by NUL, like Env
	Env      []byte  `json:"env,omitempty"`
	Workdir  []byte  `json:"workdir,omitempty"`
	User     *User   `json:"user,omitempty"`
	Given    [3]bool `json:"given"`
	Terminal *Size   `json:"terminal,omitempty"`
}

// commandSignal is what may follow.
type commandSignal struct {
	Signal int `json:"signal"`
}

// commandAnswer comes when the command has been started, with the terminal if
// there is one, or could not be; and another when it has ended.
type commandAnswer struct {
	Started bool   `json:"started,omitempty"`
	Ended   bool   `json:"ended,omitempty"`
	Code    int    `json:"code,omitempty"`
	Error   *Error `json:"error,omitempty"`
}

// Running is a command that has been started.
type Running struct {
	// Terminal is the near end of the command's terminal, and the caller's to
	// close; nil if it has none. Reading it fails when the command has ended.
	Terminal *os.File

	conn connection
	stop func() bool
}

// Exec starts a command in the container in dir, and returns once it has been
// executed. An *Error says why it has not. The command is killed, with what is
// left of its process group, when ctx ends, on Close, and when the caller's
// process ends.
func Exec(ctx context.Context, dir string, c Command) (*Running, error) {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return nil, &Error{Kind: Invalid, What: "command", Why: "is empty"}
	}
	conn, err := dialIn(dir)
	if err != nil {
		return nil, &Error{Kind: Gone, What: "container in " + dir, Why: "is not running: " + err.Error()}
	}
	r := &Running{conn: conn, stop: context.AfterFunc(ctx, func() { _ = conn.Close() })}
	if err := r.begin(c); err != nil {
		_ = r.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return r, nil
}

func (r *Running) begin(c Command) error {
	q := commandRequest{Args: joinNUL(c.Args), Env: joinNUL(c.Env), Workdir: []byte(c.Workdir), User: c.User, Terminal: c.Terminal}
	var files []*os.File
	if c.Terminal == nil {
		for i, f := range []*os.File{c.Stdin, c.Stdout, c.Stderr} {
			if q.Given[i] = f != nil; f != nil {
				files = append(files, f)
			}
		}
	}
	if err := r.conn.send(q, files...); err != nil {
		return gone(err)
	}
	var a commandAnswer
	got, err := r.conn.receive(&a)
	switch {
	case err != nil:
		return gone(err)
	case a.Error != nil:
		closeAll(got)
		return a.Error
	case c.Terminal != nil && len(got) == 1:
		r.Terminal = got[0]
	}
	return nil
}

func gone(err error) *Error {
	return &Error{Kind: Gone, What: "container", Why: "ended meanwhile: " + err.Error()}
}

// Wait returns the command's exit status, 128 and the number of the signal that
// ended it. An *Error of the kind Gone says that the container ended first.
func (r *Running) Wait() (int, error) {
	defer r.Close()
	var a commandAnswer
	files, err := r.conn.receive(&a)
	closeAll(files)
	if err != nil {
		return 0, gone(err)
	}
	return a.Code, nil
}

// Signal sends a signal to the command. With a terminal, what is typed there
// does that as well.
func (r *Running) Signal(sig unix.Signal) error {
	return r.conn.send(commandSignal{int(sig)})
}

// Close lets go of the command, which is killed if it has not ended.
func (r *Running) Close() error {
	r.stop()
	return r.conn.Close()
}

// listenIn makes a socket. Its whole name is short; the directory's
// may be long, so it goes through a descriptor.
func listenIn(dir, name string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: at(int(d.Fd())) + "/" + name})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // its socket is inherited
	return l, nil
}

func dialIn(dir string) (connection, error) {
	d, err := os.Open(dir)
	if err != nil {
		return connection{}, err
	}
	defer d.Close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: at(int(d.Fd())) + "/" + controlName})
	if err != nil {
		return connection{}, errors.Unwrap(err)
	}
	return connection{conn}, nil
}

// serve starts commands for whoever connects, until the container ends.
func (c *inner) serve(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return // nothing but the end closes it
		}
		go func() {
			defer conn.Close()
			c.command(connection{conn})
		}()
	}
}

// command runs one command. An error of the connection means that nobody is
// left to be told.
func (c *inner) command(conn connection) {
	var q commandRequest
	given, err := conn.receive(&q)
	if err != nil {
		return
	}
	defer closeAll(given)
	ended := make(chan int, 1)
	pid, terminal, err := c.startCommand(q, given, ended)
	if err != nil {
		_ = conn.send(commandAnswer{Error: asError("command", err)})
		return
	}
	closeAll(given) // so that the command's own are the last ones
	go func() {
		defer c.launcher.signal(pid, unix.SIGKILL, true)
		for {
			var s commandSignal
			if _, err := conn.receive(&s); err != nil {
				return
			}
			c.launcher.signal(pid, unix.Signal(s.Signal), false)
		}
	}()
	a := commandAnswer{Started: true}
	if terminal == nil {
		_ = conn.send(a)
	} else {
		_ = conn.send(a, terminal)
		terminal.Close()
	}
	_ = conn.send(commandAnswer{Ended: true, Code: <-ended})
}

func (c *inner) startCommand(q commandRequest, given []*os.File, ended chan<- int) (pid int, terminal *os.File, err error) {
	p := program{args: splitNUL(q.Args), workdir: string(q.Workdir), user: c.spec.User, terminal: q.Terminal != nil}
	if len(p.args) == 0 {
		return 0, nil, &Error{Kind: Invalid, What: "command", Why: "is empty"}
	}
	if q.User != nil {
		p.user = *q.User
	}
	if err := c.permit(p.user); err != nil {
		return 0, nil, err
	}
	if p.workdir == "" {
		p.workdir = c.workdir()
	}
	p.env = complete(override(c.env, splitNUL(q.Env)), p.user, c.spec.hostname())
	var own []*os.File
	defer func() { closeAll(own) }()
	if q.Terminal != nil {
		near, far, err := openTerminal(*q.Terminal, p.user, c.single)
		if err != nil {
			return 0, nil, fail(Failed, "terminal", err)
		}
		terminal, own = near, []*os.File{far}
		p.files = [3]*os.File{far, far, far}
	} else {
		null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
		if err != nil {
			return 0, nil, err
		}
		own = []*os.File{null}
		for i := range p.files {
			p.files[i] = null
			if q.Given[i] && len(given) > 0 {
				p.files[i], given = given[0], given[1:]
			}
		}
	}
	pid, err = c.launcher.start(p, ended)
	if err != nil && terminal != nil {
		terminal.Close()
		terminal = nil
	}
	return pid, terminal, err
}

// openTerminal makes a terminal in the container. The command gets the far end.
func openTerminal(size Size, user User, single bool) (near, far *os.File, err error) {
	near, err = os.OpenFile("/dev/pts/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(near.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
	}
	if err == nil {
		far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err == nil && !single {
		err = far.Chown(int(user.UID), -1)
	}
	if err != nil {
		near.Close()
		return nil, nil, err // an open far end goes with the collector
	}
	return near, far, nil
}

// override puts entries in place of those with the same names.
func override(env, with []string) []string {
	var kept []string
	for _, entry := range env {
		if !hasName(with, nameOf(entry)) {
			kept = append(kept, entry)
		}
	}
	return append(kept, with...)
}
