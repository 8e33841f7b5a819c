package keeper

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// group is where a control group is in the file system.
type group struct {
	dir string
	top string // of what is mounted
}

// groupOf returns the group of this process in a hierarchy of version 1, by the
// name of its controller, or in that of version 2, which has none.
func groupOf(controller string) (g group, ok bool) {
	memberships, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return group{}, false
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return group{}, false
	}
	return findGroup(controller, memberships, mounts)
}

func findGroup(controller string, memberships, mounts []byte) (g group, ok bool) {
	path, ok := membership(controller, memberships)
	if !ok {
		return group{}, false
	}
	for line := range bytes.Lines(mounts) {
		before, after, found := strings.Cut(strings.TrimSuffix(string(line), "\n"), " - ")
		where, how := strings.Fields(before), strings.Fields(after)
		if !found || len(where) < 5 || len(how) < 3 {
			continue
		}
		if controller == "" && how[0] != "cgroup2" {
			continue
		}
		if controller != "" && (how[0] != "cgroup" || !slices.Contains(strings.Split(how[2], ","), controller)) {
			continue
		}
		root, top := unescape(where[3]), unescape(where[4])
		below, err := filepath.Rel(root, path)
		if err != nil || below == ".." || strings.HasPrefix(below, "../") {
			continue // another part of the hierarchy is mounted here
		}
		return group{dir: filepath.Join(top, below), top: top}, true
	}
	return group{}, false
}

// membership returns the path of a group below the root of its hierarchy.
func membership(controller string, memberships []byte) (path string, ok bool) {
	for line := range bytes.Lines(memberships) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		if controller == "" && fields[0] == "0" && fields[1] == "" || controller != "" && slices.Contains(strings.Split(fields[1], ","), controller) {
			// Outside of what this process may see the path has dots in it.
			return fields[2], strings.HasPrefix(fields[2], "/") && !strings.HasPrefix(fields[2], "/..")
		}
	}
	return "", false
}

// unescape undoes what the kernel does to spaces in mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
