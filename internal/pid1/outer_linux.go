package pid1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main is the hidden command "locald container": with a Spec, the outer process
// of a container, without one, or with the word of Guest, the inner. It returns the exit status. With no
// network, a container that does not have the host's has only its loopback
// interface.
func Main(args []string, n Network) int {
	switch len(args) {
	case 0:
		return inside(n)
	case 1:
		if args[0] == guestWord {
			return join()
		}
		return outside(args[0], n)
	}
	fmt.Fprintln(os.Stderr, line(invalid("%d arguments", len(args))))
	return ExitFailed
}

// line is how an error is told to whoever reads the container's output.
func line(e *Error) string {
	return "locald: container: " + strings.ReplaceAll(e.Error(), "\n", " ")
}

// outer is the process that stands for the container on the host.
type outer struct {
	spec    Spec
	network Network
	groups  groups
	gateway Gateway // nil without a network of its own that reaches anything
	conn    connection
	life    context.Context // of the network
	leave   context.CancelFunc
	serving sync.WaitGroup
	served  chan error
	started bool
	ended   bool   // the program, of itself
	code    int    // with which status
	failure *Error // why it did not start, or had to end
}

func outside(argument string, n Network) int {
	signals := hearSignals() // first of all: what comes is for the main program
	given := givenGroups()
	// What the container's environment says to Go programs is not meant for us.
	debug.SetMemoryLimit(math.MaxInt64)
	debug.SetGCPercent(100)
	// The kernel ends the inner process with the thread that forked it, so this
	// one stays.
	goruntime.LockOSThread()
	o := &outer{network: n, groups: given, served: make(chan error, 1)}
	o.life, o.leave = context.WithCancel(context.Background())
	code, err := o.run(argument, signals)
	if err == nil {
		return code
	}
	fmt.Fprintln(os.Stderr, line(err))
	if !o.started && filepath.IsAbs(o.spec.Dir) {
		_ = writeStatus(o.spec.Dir, status{Error: err}) // it has been told
	}
	return err.ExitStatus()
}

func (o *outer) run(argument string, signals chan os.Signal) (int, *Error) {
	if err := json.Unmarshal([]byte(argument), &o.spec); err != nil {
		return 0, invalid("%v", err)
	}
	if err := o.spec.check(); err != nil {
		return 0, err
	}
	if o.spec.Engine {
		return o.host(signals)
	}
	// It takes as long as all that we have to do before it is told anything.
	cmd, conn, err := startInner(&o.spec, o.groups)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	o.conn = conn
	if err := o.instruct(); err != nil {
		_ = conn.Close() // it ends without a word
		_ = cmd.Wait()
		return 0, err
	}
	if o.gateway != nil {
		defer o.gateway.Close()
	}
	o.follow(signals, cmd.Wait)
	return o.result(cmd)
}

// attach reports whether the container has a network of its own that reaches
// anything.
func (o *outer) attach() bool { return o.network != nil && !o.spec.HostNetwork }

// environ is the container's environment.
func (o *outer) environ() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool { return slices.Contains(o.spec.Hide, nameOf(entry)) })
}

// instruct makes what the container needs on the host, and tells the inner
// process what to do.
func (o *outer) instruct() *Error {
	if err := o.spec.prepare(); err != nil {
		return asError("directory "+o.spec.Dir, err)
	}
	control, err := listenIn(o.spec.Dir, controlName)
	if err != nil {
		return fail(Failed, "control socket in "+o.spec.Dir, err)
	}
	defer control.Close()
	socket, err := control.File()
	if err != nil {
		return fail(Failed, "control socket in "+o.spec.Dir, err)
	}
	defer socket.Close()
	h := hello{Spec: o.spec, Env: joinNUL(o.environ()), Rootless: os.Geteuid() != 0, Attach: o.attach()}
	if h.Attach {
		if err := o.open(); err != nil {
			return err
		}
	}
	// Where it cannot be told any more it has ended, and follow hears of that.
	_ = o.conn.send(h, socket)
	return nil
}

func (o *outer) open() (e *Error) {
	var err error
	if o.gateway, err = o.network.Open(o.spec.Network); err != nil {
		e = fail(NetworkFailed, "network of the container", err)
		if errors.Is(err, unix.EADDRINUSE) || IsKind(err, PortTaken) {
			e.Kind = PortTaken
		}
	}
	return e
}

// news is a report with what came beside it.
type news struct {
	report
	files []*os.File
}

// listen passes reports on until the inner process has ended.
func (o *outer) listen(to chan<- news) {
	defer close(to)
	for {
		var n news
		var err error
		if n.files, err = o.conn.receive(&n.report); err != nil {
			return
		}
		to <- n
	}
}

// follow does what the inner process and our own callers want until it ends,
// for which it waits. The network is served as long.
func (o *outer) follow(signals chan os.Signal, wait func() error) {
	reports := make(chan news)
	go o.listen(reports)
	for alive := true; alive; {
		select {
		case n, ok := <-reports:
			alive = ok
			if n.Started {
				signal.Notify(signals) // before anybody is told that it runs
			}
			o.hear(n.report, n.files)
		case s := <-signals:
			if sig, ok := s.(syscall.Signal); ok && handed(sig) {
				_ = o.conn.send(order{Signal: int(sig)}) // or it has ended
			}
		case err := <-o.served:
			if err == nil {
				err = errors.New("it has ended")
			}
			// Or it ends because the container has: then that has been reported.
			o.end(fail(NetworkFailed, "network of the container", err))
		}
	}
	// The kernel takes milliseconds to take the namespaces apart, and as many to
	// give up a packet socket.
	o.leave()
	_ = wait() // the status tells
	o.serving.Wait()
}

// end ends the container. What it still reports is heard.
func (o *outer) end(why *Error) {
	o.failure = why
	_ = o.conn.CloseWrite()
}

// result is what becomes of us when the inner process has ended.
func (o *outer) result(cmd *exec.Cmd) (int, *Error) {
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case o.ended, o.started && status.Signaled():
		return exitStatus(unix.WaitStatus(status)), nil
	case o.failure != nil:
		return 0, o.failure
	}
	return 0, silent(cmd.ProcessState.String())
}

func silent(how string) *Error {
	return &Error{Kind: Failed, What: "first process of the container", Why: "ended, and did not say why: " + how}
}

func (o *outer) hear(r report, files []*os.File) {
	if r.Link && len(files) == 1 {
		o.serve(files[0])
		_ = o.conn.send(order{Proceed: true})
	}
	if r.Started {
		o.started = true
		if err := writeStatus(o.spec.Dir, status{}); err != nil {
			o.end(fail(Failed, "status in "+o.spec.Dir, err))
		}
	}
	if r.Ended {
		o.ended, o.code = true, r.Code
	}
	if r.Error != nil {
		o.failure = r.Error
	}
}

// serve serves the network that begins at link.
func (o *outer) serve(link *os.File) {
	o.serving.Go(func() {
		defer link.Close()
		o.served <- o.gateway.Serve(o.life, link)
	})
}

// startInner starts the inner process in new namespaces, with a connection to
// it. It waits for its hello.
func startInner(s *Spec, in groups) (*exec.Cmd, connection, *Error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, connection{}, fail(Failed, "socketpair", err)
	}
	far := os.NewFile(uintptr(pair[1]), "outer process")
	defer far.Close()
	conn, err := connectionOf(os.NewFile(uintptr(pair[0]), "inner process"))
	if err != nil {
		return nil, connection{}, fail(Failed, "socketpair", err)
	}
	cmd := exec.Command("/proc/self/exe", "container")
	cmd.Args[0] = "locald"
	cmd.Dir = "/"
	cmd.Env = ownEnvironment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{outerDescriptor - 3: far}
	cmd.SysProcAttr = s.namespaces()
	if err := in.start(cmd); err != nil {
		_ = conn.Close()
		return nil, connection{}, forbidden("namespaces", err)
	}
	if s.Range != nil && os.Geteuid() != 0 {
		if err := s.Range.give(cmd.Process.Pid); err != nil {
			_ = conn.Close() // it ends, having been told nothing
			_ = cmd.Wait()
			return nil, connection{}, asError("range of users", err)
		}
	}
	return cmd, conn, nil
}

// ownEnvironment is what the inner process itself gets: what it is found by.
// What the container's environment has for Go programs is not for ours.
func ownEnvironment() []string {
	own := []string{"GOMAXPROCS=2"} // or Go looks through all mounts for a limit of processors
	for _, entry := range os.Environ() {
		if strings.HasPrefix(entry, "LOCALD_") {
			own = append(own, entry)
		}
	}
	return own
}

// namespaces is how the inner process is forked.
func (s *Spec) namespaces() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Setsid:     true, // signals for the outer process's group come once
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	if !s.HostNetwork {
		attr.Cloneflags |= unix.CLONE_NEWNET
	}
	if os.Geteuid() == 0 {
		return attr
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	if s.Range == nil {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: int(s.MapUID), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: int(s.MapGID), HostID: os.Getegid(), Size: 1}}
	}
	// Without these, a user that is not root in there would lose with exec what he
	// may do to the namespaces.
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		attr.AmbientCaps = append(attr.AmbientCaps, c)
	}
	return attr
}

// prepare makes what is in the container's directory.
func (s *Spec) prepare() error {
	if _, err := os.Lstat(filepath.Join(s.Dir, statusName)); err == nil {
		return &Error{Kind: Invalid, What: "directory " + s.Dir, Why: "is another container's"}
	}
	if s.Engine {
		return s.identify(s.Dir)
	}
	dirs := []string{s.upper(), s.work()}
	if len(s.Layers) == 0 {
		dirs = append(dirs, s.layers()...)
	}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return s.likeTheImage(s.upper())
}

// likeTheImage gives the directory that the root is seen by the mode and the
// owner of the top layer's.
func (s *Spec) likeTheImage(dir string) error {
	if len(s.Layers) == 0 {
		return os.Chmod(dir, 0o755)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.Layers[0], &st); err != nil {
		return fail(MountFailed, "layer "+s.Layers[0], err)
	}
	if err := unix.Chmod(dir, st.Mode&0o7777); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return unix.Chown(dir, int(st.Uid), int(st.Gid))
}
