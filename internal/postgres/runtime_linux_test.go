package postgres

import (
	"os"
	"syscall"
)

// becomeOrdinary lets a process of root see itself as nobody while its files
// belong to root, as runtime/process does for an unprivileged Spec. The user must
// have a name: initdb asks for it.
func becomeOrdinary(attr *syscall.SysProcAttr) {
	attr.Cloneflags = syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}}
}
