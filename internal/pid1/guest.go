package pid1

import "path/filepath"

// Where a container that an engine makes has what its first process is, and
// where that finds the outer process.
const (
	guestDir     = "/.locald"
	guestProgram = guestDir + "/init"
	guestSocket  = guestDir + "/outer"
)

// guestWord is the argument that makes a locald the first process of such a
// container.
const guestWord = "join"

// joinName is the socket on which the outer process waits for it.
const joinName = "outer"

// Guest is what an engine has to start as the first process, and what it has to
// mount besides what the container itself is to have. program is the file of a
// locald that needs no libraries. The first process must be root in the
// container, with Docker's capabilities; the main program's user, environment
// and standard streams are the outer process's to give.
func Guest(dir, program string) (argv []string, mounts []Mount) {
	mounts = []Mount{
		{Source: program, Target: guestProgram, ReadOnly: true},
		{Source: filepath.Join(dir, joinName), Target: guestSocket},
	}
	for _, name := range identities {
		mounts = append(mounts, Mount{Source: filepath.Join(dir, name), Target: "/etc/" + name})
	}
	return []string{guestProgram, "container", guestWord}, mounts
}

// identities are the files in /etc that say who and where a container is.
var identities = []string{"hosts", "hostname", "resolv.conf"}
