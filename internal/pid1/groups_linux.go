package pid1

import (
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// groups are the control groups in which the container is to be, as the outer
// process was given them: of version 2 the directory of one, of version 1 for
// each controller the file by which a thread goes there.
type groups struct {
	directory *os.File
	tasks     []*os.File
}

// firstGroup is the first descriptor at which they are.
const firstGroup = 3

func givenGroups() (g groups) {
	for fd := firstGroup; ; fd++ {
		var fs unix.Statfs_t
		// Go's runtime has files of control groups too, which nobody inherits.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 || unix.Fstatfs(fd, &fs) != nil {
			return g
		}
		switch fs.Type {
		case unix.CGROUP2_SUPER_MAGIC:
			g.directory = os.NewFile(uintptr(fd), "control group")
		case unix.CGROUP_SUPER_MAGIC:
			g.tasks = append(g.tasks, os.NewFile(uintptr(fd), "tasks of a control group"))
		default:
			return g
		}
		unix.CloseOnExec(fd)
	}
}

// start starts a process in the groups, which the outer process itself is not
// in: what it needs for the network is not the container's.
func (g groups) start(cmd *exec.Cmd) error {
	if g.directory != nil {
		defer g.directory.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(g.directory.Fd())
	}
	if len(g.tasks) == 0 {
		return cmd.Start()
	}
	defer closeAll(g.tasks)
	started := make(chan error)
	go func() {
		// A process is born where the thread that forks it is, and ends with that
		// thread. So there is one that goes there and stays.
		goruntime.LockOSThread()
		err := g.enter()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			select {}
		}
	}()
	return <-started
}

// enter puts this thread into the groups of version 1.
func (g groups) enter() error {
	for _, f := range g.tasks {
		if _, err := f.WriteString("0"); err != nil {
			return fmt.Errorf("control group: %w", err)
		}
	}
	return nil
}

// aloneWithGroups gives this thread, and what it forks, the groups that it is in
// as the whole of what it sees. As long as a process is forked into its group
// it is its parent's that counts, so that cannot be done before.
func aloneWithGroups() error {
	return os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWCGROUP))
}
