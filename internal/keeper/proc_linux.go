package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// process is what /proc/PID/stat says.
type process struct {
	pid, parent, group int
	state              byte
	start              uint64 // clock ticks since boot
}

func (p process) dead() bool    { return p.state == 'Z' || p.state == 'X' }
func (p process) stopped() bool { return p.state == 'T' || p.state == 't' }

func readProcess(pid int) (p process, ok bool) {
	var buf [1024]byte
	p, ok = parseStat(readProc(pid, "stat", buf[:]))
	p.pid = pid
	return p, ok
}

// parseStat reads what proc_pid_stat(5) describes, but for the PID. What is not
// whole and in that form is nothing: a process with a guessed parent could be
// taken for somebody's child.
func parseStat(b []byte) (p process, ok bool) {
	// The name may hold anything, so the fields are counted from its end.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 21 || len(fields[0]) != 1 {
		return process{}, false
	}
	p.state = fields[0][0]
	var errs [3]error
	p.parent, errs[0] = strconv.Atoi(string(fields[1]))
	p.group, errs[1] = strconv.Atoi(string(fields[2]))
	p.start, errs[2] = strconv.ParseUint(string(fields[19]), 10, 64)
	if errors.Join(errs[:]...) != nil {
		return process{}, false
	}
	return p, true
}

// readProc reads what fits into buf of a file of a process.
func readProc(pid int, name string, buf []byte) []byte {
	return readFile("/proc/"+strconv.Itoa(pid)+"/"+name, buf)
}

// readFile reads what fits into buf of a file of the kernel's. Package os would
// also see whether it can be waited for.
func readFile(path string, buf []byte) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || m <= 0 {
			break
		}
		n += m
	}
	return buf[:n]
}

// eachProcess calls f with the processes of the machine, each as it is listed:
// a process that hops from PID to PID would outrun a list that is read first. So
// the kernel is asked for a few at a time, which package os does not.
func eachProcess(f func(pid int)) error { return eachNumber("/proc", f) }

// eachNumber calls f with the names in a directory that are numbers.
func eachNumber(path string, f func(number int)) error {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(dir)
	var buf [1024]byte
	var names []string
	for {
		n, err := unix.ReadDirent(dir, buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if number, err := strconv.Atoi(name); err == nil {
				f(number)
			}
		}
	}
}

// childrenOf returns the children of a process, zombies included. ok is false
// when the kernel does not tell.
func childrenOf(pid int) (children []int, ok bool) {
	task := "/proc/" + strconv.Itoa(pid) + "/task"
	if isAlone(task) {
		return childrenOfThreads(pid, pid)
	}
	err := eachNumber(task, func(thread int) {
		some, told := childrenOfThreads(pid, thread)
		children = append(children, some...)
		ok = ok || told
	})
	return children, ok && err == nil
}

// isAlone reports whether a process has one thread, which is its first: the
// directory of its threads has a link for each, beside the two of any directory.
func isAlone(task string) bool {
	var st unix.Stat_t
	return unix.Stat(task, &st) == nil && st.Nlink == 3
}

// childrenOfThreads is childrenOf a process for some of its threads. One that has
// ended has passed its children to another.
func childrenOfThreads(pid int, threads ...int) (children []int, ok bool) {
	var room [1024]byte
	buf := room[:]
	for _, thread := range threads {
		b, err := readWhole("/proc/"+strconv.Itoa(pid)+"/task/"+strconv.Itoa(thread)+"/children", buf)
		if err != nil {
			continue
		}
		ok = true
		for field := range bytes.FieldsSeq(b) {
			if child, err := strconv.Atoi(string(field)); err == nil {
				children = append(children, child)
			}
		}
	}
	return children, ok
}

// readWhole is readFile with a larger buf where that one is too small.
func readWhole(path string, buf []byte) ([]byte, error) {
	f, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(f)
	n := 0
	for {
		if n == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
		m, err := unix.Read(f, buf[n:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		case m == 0:
			return buf[:n], nil
		default:
			n += m
		}
	}
}

// lockLimit reads the hard limit that marks a process, also of a zombie.
func lockLimit(pid int) (limit uint64, ok bool) {
	var l unix.Rlimit
	if unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &l) == nil {
		return l.Max, true
	}
	// Of another user's process prlimit tells nothing; the file does.
	var buf [4096]byte
	return parseLimits(readProc(pid, "limits", buf[:]))
}

// parseLimits finds the hard limit of locks in what proc_pid_limits(5)
// describes.
func parseLimits(b []byte) (limit uint64, ok bool) {
	for line := range bytes.Lines(b) {
		rest, found := bytes.CutPrefix(line, []byte("Max file locks "))
		fields := bytes.Fields(rest)
		if !found || len(fields) < 2 {
			continue
		}
		if string(fields[1]) == "unlimited" {
			return unix.RLIM_INFINITY, true
		}
		limit, err := strconv.ParseUint(string(fields[1]), 10, 64)
		return limit, err == nil
	}
	return 0, false
}

func setLockLimit(limit uint64) error {
	return unix.Prlimit(0, unix.RLIMIT_LOCKS, &unix.Rlimit{Cur: limit, Max: limit}, nil)
}

func environ(pid int) []byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil
	}
	return b
}

// Holds reports whether the process belongs to the marked run: it carries its
// number, or its words in its environment.
func (m Mark) Holds(pid int) bool {
	numbered := false
	if limit, ok := lockLimit(pid); ok && m.Number != 0 {
		number, ours := numberOf(m.Owner, limit)
		if ours && number != m.Number {
			return false
		}
		numbered = ours
	}
	runs := runsOf(m.Owner, environ(pid))
	if len(runs) == 0 || m.Run == "" {
		return numbered
	}
	// Another keeper may have drawn the same numbers, but runs never repeat.
	return slices.Contains(runs, m.Run)
}

// Boot identifies the boot of the machine. A mark means nothing in another.
func Boot() (string, error) { return boot() }

var boot = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
})

// survivor says why a process is still there.
func survivor(pid int, refused error) Survivor {
	s := Survivor{PID: pid, Reason: "did not end on SIGKILL"}
	p, ok := readProcess(pid)
	switch {
	case errors.Is(refused, unix.EPERM):
		s.Reason = "belongs to " + ownerOf(pid)
	case ok && p.state == 'D':
		s.Reason = "uninterruptible"
		var buf [128]byte
		if where := strings.TrimSpace(string(readProc(pid, "wchan", buf[:]))); where != "" && where != "0" {
			s.Reason += " in " + where
		}
	}
	return s
}

func ownerOf(pid int) string {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid), &st) != nil {
		return "another user"
	}
	if u, err := user.LookupId(strconv.Itoa(int(st.Uid))); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", st.Uid)
}

// ourChildren returns the children of this process, zombies included.
func ourChildren() []int {
	if children, ok := childrenOf(os.Getpid()); ok {
		return children
	}
	var children []int
	_ = eachProcess(func(pid int) {
		if p, ok := readProcess(pid); ok && p.parent == os.Getpid() {
			children = append(children, pid)
		}
	})
	return children
}
