package pid1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// outerDescriptor is what the inner process is born with, beside the standard
// ones.
const outerDescriptor = 3

// hello is the first thing that the inner process is told. It comes with the
// socket that Exec connects to, except when the machine is only probed.
type hello struct {
	Spec     Spec   `json:"spec"`
	Env      []byte `json:"env,omitempty"` // separated by NUL
	Rootless bool   `json:"rootless,omitempty"`
	Attach   bool   `json:"attach,omitempty"` // to the network that Main has
	Probe    bool   `json:"probe,omitempty"`  // go as far as the main program, and end
	Chore    *chore `json:"chore,omitempty"`  // do that, and end
}

// order is what it is told after that.
type order struct {
	Signal  int  `json:"signal,omitempty"`  // for the main program
	Proceed bool `json:"proceed,omitempty"` // the network is served
}

// report is what it tells.
type report struct {
	Link    bool   `json:"link,omitempty"` // comes with the descriptor of the network
	Started bool   `json:"started,omitempty"`
	Ended   bool   `json:"ended,omitempty"` // the program has
	Code    int    `json:"code,omitempty"`  // with which status, as our own one tells as well
	Error   *Error `json:"error,omitempty"`
}

func joinNUL(texts []string) []byte { return []byte(strings.Join(texts, "\x00")) }

func splitNUL(joined []byte) []string {
	if len(joined) == 0 {
		return nil
	}
	return strings.Split(string(joined), "\x00")
}

// inner is the container's PID 1.
type inner struct {
	outer    connection
	control  *os.File
	spec     Spec
	env      []string
	rootless bool
	single   bool // one user is all that it has
	launcher *launcher

	proceed chan struct{}
	lost    chan struct{} // closed when the outer process is gone

	mu      sync.Mutex
	main    int
	pending []unix.Signal // came before there was a main program
}

// inside is Main of the inner process.
func inside(n Network) int {
	signals := hearSignals()
	if err := unix.CloseRange(outerDescriptor, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, line(fail(Failed, "close_range", err)))
		return ExitFailed
	}
	outer, err := connectionOf(os.NewFile(outerDescriptor, "outer process"))
	var h hello
	var files []*os.File
	if err == nil {
		files, err = outer.receive(&h)
	}
	if errors.Is(err, io.EOF) && os.Getpid() == 1 {
		return ExitFailed // there is to be no container, as the outer process says itself
	}
	if err != nil || os.Getpid() != 1 {
		return notForPeople()
	}
	if h.Chore != nil {
		return h.Chore.report(outer)
	}
	var control *os.File
	if len(files) == 1 {
		control = files[0]
	}
	return newInner(outer, h, control).run(h, n, signals)
}

func notForPeople() int {
	fmt.Fprintln(os.Stderr, "locald: container: is for locald itself: locald up starts containers")
	return ExitFailed
}

func newInner(outer connection, h hello, control *os.File) *inner {
	return &inner{
		outer: outer, control: control, spec: h.Spec, env: splitNUL(h.Env), rootless: h.Rootless,
		single: h.Rootless && h.Spec.Range == nil, proceed: make(chan struct{}), lost: make(chan struct{}),
	}
}

// run is the container, from its making to its end.
func (c *inner) run(h hello, n Network, signals chan os.Signal) int {
	outer := c.outer
	go c.listen()
	ended, err := c.start(h, n)
	if err != nil {
		e := asError("container", err)
		_ = outer.send(report{Error: e}) // if nobody is there, nobody asks
		return e.ExitStatus()
	}
	if h.Probe {
		return 0
	}
	go signal.Notify(signals)
	for {
		select {
		case code := <-ended:
			_ = outer.send(report{Ended: true, Code: code})
			return code
		case <-c.lost:
			return 128 + int(unix.SIGKILL)
		case s := <-signals:
			if sig, ok := s.(syscall.Signal); ok && handed(sig) {
				c.signal(sig)
			}
		}
	}
}

// hearSignals makes the signals that matter while a container is made wait for
// us, instead of ending us or, as PID 1's do, of being dropped. Those that were
// ignored when we were started are not ignored in what we start. To ask for all
// signals takes a millisecond, which is for later.
func hearSignals() chan os.Signal {
	c := make(chan os.Signal, 64)
	signal.Notify(c, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	return c
}

// handed reports whether a signal is for the main program. The others are
// about ourselves, or Go's own.
func handed(sig syscall.Signal) bool {
	return sig != unix.SIGCHLD && sig != unix.SIGURG && sig != unix.SIGPIPE
}

// listen follows orders until the outer process is gone.
func (c *inner) listen() {
	defer close(c.lost)
	for {
		var o order
		if _, err := c.outer.receive(&o); err != nil {
			return
		}
		if o.Proceed {
			close(c.proceed)
		}
		if o.Signal != 0 {
			c.signal(unix.Signal(o.Signal))
		}
	}
}

// signal hands a signal to the main program, now or as soon as there is one.
func (c *inner) signal(sig unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.main == 0 {
		c.pending = append(c.pending, sig)
		return
	}
	c.launcher.signal(c.main, sig, false)
}

// start makes the container, and starts the main program.
func (c *inner) start(h hello, n Network) (<-chan int, error) {
	unix.Umask(0o022)
	if err := c.make(h, n); err != nil {
		return nil, err
	}
	if h.Attach {
		select {
		case <-c.proceed:
		case <-c.lost:
			return nil, errors.New("the outer process is gone")
		}
	}
	if h.Probe {
		return nil, c.outer.send(report{Started: true})
	}
	control, err := c.listener()
	if err != nil {
		return nil, err
	}
	ended, err := c.startMain()
	if err != nil {
		return nil, err
	}
	go c.serve(control)
	return ended, c.outer.send(report{Started: true})
}

// make makes what the main program runs in, of which an engine leaves us only the
// launcher.
func (c *inner) make(h hello, n Network) (err error) {
	if c.spec.Engine {
		c.launcher, err = launch(c.single, unmask)
		return err
	}
	// The kernel takes its time for the network and for the root, so both are made
	// at once.
	others := make(chan error, 1)
	go func() { others <- c.apart(h, n) }()
	made := sync.OnceValue(func() error { return <-others })
	err = c.spec.makeRoot(c.rootless, made)
	if e := made(); e != nil {
		err = e
	}
	return err
}

// apart makes what has nothing to do with the root.
func (c *inner) apart(h hello, n Network) (err error) {
	if err := c.network(h, n); err != nil {
		return err
	}
	if c.launcher, err = launch(c.single, restrict); err != nil {
		return forbidden("restrictions", err)
	}
	return nil
}

func (c *inner) listener() (*net.UnixListener, error) {
	if c.control == nil {
		return nil, fail(Failed, "control socket", errors.New("it did not come"))
	}
	defer c.control.Close()
	l, err := net.FileListener(c.control)
	if err != nil {
		return nil, fail(Failed, "control socket", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fail(Failed, "control socket", errors.New("not a Unix socket"))
	}
	return u, nil
}

// network gives the container its network, while the host's devices are to be
// seen.
func (c *inner) network(h hello, n Network) error {
	if h.Spec.HostNetwork {
		return nil
	}
	if !h.Attach {
		if err := loopbackUp(); err != nil {
			return fail(NetworkFailed, "loopback interface", err)
		}
		return nil
	}
	link, err := n.Attach()
	if err != nil {
		return fail(NetworkFailed, "network of the container", err)
	}
	defer link.Close()
	return c.outer.send(report{Link: true}, link)
}

// loopbackUp is all of the network of a container without one.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return os.NewSyscallError("ioctl", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo))
}

func (c *inner) startMain() (<-chan int, error) {
	if err := c.permit(c.spec.User); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ended := make(chan int, 1)
	pid, err := c.launcher.start(program{
		args: c.spec.Args, env: complete(c.env, c.spec.User, c.spec.hostname()), workdir: c.workdir(), user: c.spec.User,
		files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr},
	}, ended)
	if err != nil {
		return nil, err
	}
	c.main = pid
	for _, sig := range c.pending {
		c.launcher.signal(pid, sig, false)
	}
	return ended, nil
}

// permit finds whether the container has such a user.
func (c *inner) permit(u User) error {
	if r := c.spec.Range; c.rootless && r != nil && !r.Has(u) {
		return &Error{Kind: Invalid, What: fmt.Sprintf("user %d:%d", u.UID, u.GID), Why: "the range of users that the container has is too small"}
	}
	if c.single && (u.UID != c.spec.MapUID || u.GID != c.spec.MapGID) {
		return &Error{
			Kind: Invalid, What: fmt.Sprintf("user %d:%d", u.UID, u.GID),
			Why: fmt.Sprintf("the container of an ordinary user has one user only, here %d:%d", c.spec.MapUID, c.spec.MapGID),
		}
	}
	return nil
}

func (c *inner) workdir() string {
	if c.spec.Workdir == "" {
		return "/"
	}
	return c.spec.Workdir
}
