package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// delegated makes a control group for a test, or skips it.
func delegated(t *testing.T) (dir string) {
	t.Helper()
	own, ok := groupOf("")
	if !ok || os.Geteuid() != 0 {
		t.Skip("no control group of version 2 can be delegated")
	}
	dir = filepath.Join(own.dir, fmt.Sprintf("keeper-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-")))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no control group of version 2 can be delegated: %v", err)
	}
	t.Cleanup(func() {
		if left := groupProcesses(dir); len(left) > 0 {
			t.Errorf("processes are left in the group: %v", left)
			_ = writeExisting(filepath.Join(dir, "cgroup.kill"), "1")
		}
		removeGroup(dir)
	})
	return dir
}

// delegate hands a group to a user, as a user manager does.
func delegate(t *testing.T, dir string, user int) {
	t.Helper()
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		if err := os.Chown(filepath.Join(dir, name), user, user); err != nil {
			t.Fatal(err)
		}
	}
}

// Where a group is delegated it tells of what has removed every mark, however
// soon daemon and keeper are killed after its start, and no group is left.
func TestGroups(t *testing.T) {
	for _, kind := range []string{"unmarked", "clearenv", "storm", "hop"} {
		for _, killed := range []string{"daemon", "keeper", "both"} {
			t.Run(kind+"/"+killed, func(t *testing.T) {
				t.Parallel()
				t.Attr("promise", "P1 P4 F19 F21 F22")
				dir := delegated(t)
				c := crashIn(t, kind, dir)
				made := groupsBelow(dir)
				if len(made) != 1 || len(groupsBelow(made[0])) != 1 || !populated(groupsBelow(made[0])[0]) {
					t.Fatalf("groups are %v; want that of the keeper, with that of the run", made)
				}
				switch killed {
				case "daemon":
					c.kill(t)
				case "keeper":
					_ = syscall.Kill(c.keeper, syscall.SIGKILL)
					c.hear(t, "cleared")
					c.hear(t, "keeper")
					for c.hear(t, "ended") != c.daemon {
					}
				case "both":
					_ = syscall.Kill(c.daemon, syscall.SIGSTOP)
					_ = syscall.Kill(c.keeper, syscall.SIGKILL)
					c.kill(t)
				}
				sweepLeft(t, c.dir, c.owner)
				c.gone(t)
				if left := groupsBelow(dir); len(left) > 0 {
					t.Errorf("groups are left: %v", left)
				}
				if left := recordsOf(t, c.dir); len(left) > 0 {
					t.Errorf("records are left: %+v", left)
				}
			})
		}
	}
}

// A service's own groups, and what it put there, end with it.
func TestGroupsBelow(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P1")
	if g := makeGroups("probe", fmt.Sprint(os.Getpid())); g == nil {
		t.Skip("no control group of version 2 can be made")
	} else {
		g.close()
	}
	k := open(t)
	w := newWitness(t)
	r := shell(t, `own=$(sed -n 's/^0:://p' /proc/self/cgroup); top=$(sed -n 's/.* \(\/[^ ]*\) [^ ]* - cgroup2 .*/\1/p' /proc/self/mountinfo | head -1)
		mkdir -p "$top$own/a/b" && (echo 0 > "$top$own/a/b/cgroup.procs" && exec setsid sleep 60) & echo "$own"; wait`)
	r.Stdout, r.Stderr = w.write, w.write
	c := start(t, k, r)
	own, ok := groupOf("")
	path := w.saw(t)
	if !ok || !strings.Contains(path, "/locald-") {
		t.Fatalf("the group is %q", path)
	}
	dir := filepath.Join(own.top, path)
	stopped(t, c, 0)
	w.gone(t)
	if err := unix.Access(dir, unix.F_OK); err == nil {
		t.Errorf("the group %s is left", dir)
	}
}

func TestLayers(t *testing.T) {
	t.Attr("promise", "P20")
	told := func() map[string]Layer {
		all := map[string]Layer{}
		for _, l := range Layers() {
			if l.Detail == "" {
				t.Errorf("%s: nothing is said of it", l.Name)
			}
			all[l.Name] = l
		}
		return all
	}
	if all := told(); len(all) != 7 || !all["subreaper"].Here || !all["pidfd"].Here {
		t.Errorf("layers are %+v", all)
	}
	t.Setenv(Groups, "off")
	if l := told()["control groups"]; l.Here || !strings.Contains(l.Detail, Groups) {
		t.Errorf("without control groups: %+v", l)
	}
}
