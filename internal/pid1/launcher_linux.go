package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// capabilities are Docker's default ones: the most that a process of a
// container can get.
var capabilities = []uintptr{
	unix.CAP_AUDIT_WRITE, unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_MKNOD,
	unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SETFCAP, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_SETUID, unix.CAP_SYS_CHROOT,
}

// defaultPath is Docker's.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// program is a process to start.
type program struct {
	args     []string
	env      []string
	workdir  string
	user     User
	files    [3]*os.File
	terminal bool // files are one, and it is to be the controlling one
}

// launcher forks all programs of a container, and reaps them. It forks from one
// thread, which has what they are to inherit: what they may ask of the kernel,
// and the capabilities that they can get. The rest of the process keeps its own.
type launcher struct {
	single bool // there is one user, which they are already
	tasks  chan func()

	mu       sync.Mutex
	children map[int]chan<- int // who waits for which exit status
	forked   bool
}

// launch starts the thread, with the limits that it is to have.
func launch(single bool, limits func() error) (*launcher, error) {
	l := &launcher{single: single, tasks: make(chan func()), children: map[int]chan<- int{}}
	ready := make(chan error)
	go func() {
		goruntime.LockOSThread() // for ever: nobody else may have this thread
		err := limits()
		ready <- err
		if err != nil {
			return
		}
		for task := range l.tasks {
			task()
		}
	}()
	return l, <-ready
}

// restrict takes from this thread what containers do not have.
func restrict() error {
	if err := aloneWithGroups(); err != nil {
		return err
	}
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		if slices.Contains(capabilities, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("capability %d: %w", c, err)
		}
	}
	// Inherited are none, and with them go the ambient ones, by which this
	// process has its own.
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	sets[0].Inheritable, sets[1].Inheritable = 0, 0
	if err := unix.Capset(&head, &sets[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	if err := unmask(); err != nil {
		return err
	}
	return confine()
}

// unmask lets all signals through.
func unmask() error {
	return os.NewSyscallError("sigmask", unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil))
}

// start returns once the program has been executed. Its exit status comes on
// ended, which needs room for one.
func (l *launcher) start(p program, ended chan<- int) (pid int, err error) {
	done := make(chan struct{})
	l.tasks <- func() {
		defer close(done)
		pid, err = l.fork(p, ended)
	}
	<-done
	return pid, err
}

func (l *launcher) fork(p program, ended chan<- int) (int, error) {
	where, err := look(p.args[0], p.workdir, p.env)
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{Dir: p.workdir, Env: p.env, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: p.terminal}}
	for _, f := range p.files {
		attr.Files = append(attr.Files, f.Fd())
	}
	if !l.single {
		attr.Sys.Credential = &syscall.Credential{Uid: p.user.UID, Gid: p.user.GID, Groups: p.user.Groups}
		l.give(p)
	}
	// Whoever reaps waits until it is known whose child it is.
	l.mu.Lock()
	defer l.mu.Unlock()
	pid, err := syscall.ForkExec(where, p.args, attr)
	if err != nil {
		return 0, cannotExecute(where, p, err)
	}
	l.children[pid] = ended
	if !l.forked {
		l.forked = true
		go l.reap()
	}
	return pid, nil
}

// give lets the program open its pipes again, by /dev/stdout say.
func (l *launcher) give(p program) {
	for _, f := range p.files {
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO && st.Uid != p.user.UID {
			_ = unix.Fchown(int(f.Fd()), int(p.user.UID), -1) // without it, it has them still
		}
	}
}

// reap takes in whatever ends in the container, and tells who waits for it.
func (l *launcher) reap() {
	for {
		// This only looks: a child keeps its number until the lock is ours, so that
		// nobody signals one that is another's by then.
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // no child is left; the main program's end is told
		}
		l.reapLocked()
	}
}

func (l *launcher) reapLocked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ended := l.children[pid]; ended != nil {
			delete(l.children, pid)
			ended <- exitStatus(status)
		}
	}
}

func exitStatus(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// signal signals a child, or its group, that has not been reaped.
func (l *launcher) signal(pid int, sig unix.Signal, group bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.children[pid] == nil {
		return
	}
	if group {
		pid = -pid
	}
	_ = unix.Kill(pid, sig)
}

// look finds a program as the shell would, in the container's root.
func look(name, workdir string, env []string) (string, error) {
	from := func(p string) string {
		if path.IsAbs(p) {
			return p
		}
		return path.Join(workdir, p)
	}
	if strings.Contains(name, "/") {
		return from(name), executable(from(name))
	}
	var refused error
	for dir := range strings.SplitSeq(valueOf(env, "PATH"), ":") {
		where := path.Join(from(dir), name)
		err := executable(where)
		if err == nil {
			return where, nil
		}
		if IsKind(err, NotExecutable) && refused == nil {
			refused = err
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", &Error{Kind: NotFound, What: "command " + name, Why: "not found in the container's PATH", Hint: "PATH is " + valueOf(env, "PATH")}
}

// executable returns nil, or why nobody can execute it.
func executable(where string) error {
	what := "command " + where
	info, err := os.Stat(where)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return &Error{Kind: NotFound, What: what, Why: "not there in the container"}
	case err != nil:
		return fail(NotExecutable, what, errors.Unwrap(err))
	case info.IsDir():
		return &Error{Kind: NotExecutable, What: what, Why: "is a directory"}
	case info.Mode()&0o111 == 0:
		return &Error{Kind: NotExecutable, What: what, Why: "is not executable", Hint: "RUN chmod +x " + where}
	}
	return nil
}

// cannotExecute says why a program that is there could not be started.
func cannotExecute(where string, p program, err error) *Error {
	if info, e := os.Stat(p.workdir); e != nil || !info.IsDir() {
		return &Error{Kind: WorkdirFailed, What: "working directory " + p.workdir, Why: "is not a directory of the container"}
	}
	e := fail(NotExecutable, "command "+where, err)
	switch {
	case errors.Is(err, unix.ENOENT):
		e.Why = "its interpreter, or the loader of its libraries, is not in the container"
	case errors.Is(err, unix.ENOEXEC):
		e.Why, e.Hint = "is not a program for this machine, and no script with a first line #!", "uname -m"
	case errors.Is(err, unix.EACCES):
		e.Why = fmt.Sprintf("user %d of the container may not execute it, or not enter %s", p.user.UID, p.workdir)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM):
		e.Kind = Failed
	}
	return e
}

// valueOf is what a name stands for in an environment: the last one counts.
func valueOf(env []string, name string) string {
	for _, entry := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// complete adds to an environment what every program expects.
func complete(env []string, user User, hostname string) []string {
	home := user.Home
	if home == "" {
		home = "/"
	}
	for _, d := range [][2]string{{"PATH", defaultPath}, {"HOSTNAME", hostname}, {"HOME", home}} {
		if !hasName(env, d[0]) {
			env = append(env, d[0]+"="+d[1])
		}
	}
	return env
}

func hasName(env []string, name string) bool {
	return slices.ContainsFunc(env, func(entry string) bool { return nameOf(entry) == name })
}

func nameOf(entry string) string {
	name, _, _ := strings.Cut(entry, "=")
	return name
}
