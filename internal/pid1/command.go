package pid1

import "os"

// Command is a further command in a container.
type Command struct {
	Args    []string // Args[0] without a slash is looked up in the container's PATH
	Env     []string // in addition to the container's, and in its place where a name is in both
	Workdir string   // absolute in the container; empty is the main program's
	User    *User    // nil is the main program's

	// Stdin, Stdout and Stderr are handed over as they are; nil is /dev/null. The
	// caller keeps its own copies.
	Stdin, Stdout, Stderr *os.File

	// Terminal gives the command a terminal of its own, of that size, in place of
	// the three.
	Terminal *Size
}

// Size is that of a terminal.
type Size struct{ Rows, Columns uint16 }
