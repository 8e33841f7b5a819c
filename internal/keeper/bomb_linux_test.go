package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bombed is what a daemon tells that had a fork bomb among its services.
type bombed struct {
	Refused  int           `json:"refused"`  // commands of its own that it could not start
	Commands int           `json:"commands"` // those that it could
	Slowest  time.Duration `json:"slowest"`  // answer of the keeper
	Stopped  time.Duration `json:"stopped"`  // how long the stop took
	Error    string        `json:"error,omitempty"`
}

// withBomb is a daemon with a service that forks without end.
func withBomb(args []string) int {
	var b bombed
	if err := b.run(args[0], args[1]); err != nil {
		b.Error = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(b)
	return 0
}

func (b *bombed) run(dir, program string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	k, err := Start(ctx, Options{Dir: dir, Owner: "bomb", Log: os.Stderr, NoGroups: true})
	if err != nil {
		return err
	}
	neighbour, err := k.Run(ctx, Run{ID: "p/other#1", Argv: []string{"sleep", "60"}, Dir: "/", Env: env})
	if err != nil {
		return err
	}
	c, err := k.Run(ctx, Run{ID: "p/web#1", Number: 1, Argv: []string{program, "bomb"}, Dir: "/", Env: env})
	if err != nil {
		return err
	}
	// Once a shell cannot fork the services have all that they may have.
	for n := 0; ; n++ {
		shell, err := k.Run(ctx, Run{ID: fmt.Sprintf("p/shell#%d", n), Argv: []string{"sh", "-c", "/bin/true; exit 0"}, Dir: "/", Env: env})
		if err != nil {
			return err
		}
		<-shell.Done()
		if shell.Exit().Code != 0 {
			break
		}
	}
	for until := time.Now().Add(time.Second); time.Now().Before(until); {
		began := time.Now()
		if err := k.Flush(ctx, dir, 1); err != nil {
			return err
		}
		b.Slowest = max(b.Slowest, time.Since(began))
		if exec.Command("/bin/true").Run() == nil {
			b.Commands++
		} else {
			b.Refused++
		}
		// Calls that block take threads.
		var blocked sync.WaitGroup
		for range 20 {
			blocked.Go(func() { _, _ = unix.Poll(nil, 20) })
		}
		blocked.Wait()
	}
	began := time.Now()
	if err := c.Stop(ctx, 0); err != nil {
		return err
	}
	b.Stopped = time.Since(began)
	select {
	case <-neighbour.Done():
		return errors.New("the neighbour has ended")
	default:
	}
	return k.Close()
}

// spareUser is a user ID that no other test uses at the same time.
func spareUser() int { return 100000 + os.Getpid() }

// placeFor makes a directory with the test binary and the hostile program in
// it, for any user.
func placeFor(t *testing.T, user int) (dir, self, program string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "keeper")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, user, user)); err != nil {
		t.Fatal(err)
	}
	self, program = filepath.Join(dir, "keeper"), filepath.Join(dir, "hostile")
	copyProgram(t, "/proc/self/exe", self, 0o755)
	copyProgram(t, hostileProgram(t), program, 0o755)
	return dir, self, program
}

// ordinary is a command of an ordinary user with a limit of processes, in a
// group that holds it to little more whatever becomes of the limit.
func ordinary(t *testing.T, user, processes int, command ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: a user of its own cannot be had")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("setpriv is not in PATH")
	}
	into := ":"
	if g, ok := groupOf("pids"); ok {
		net := filepath.Join(g.top, "locald-test-"+strconv.Itoa(user))
		if os.Mkdir(net, 0o755) == nil {
			t.Cleanup(func() {
				if err := os.Remove(net); err != nil {
					t.Errorf("processes are left: %v", err)
				}
			})
			if err := os.WriteFile(filepath.Join(net, "pids.max"), []byte(strconv.Itoa(2*processes)), 0o644); err != nil {
				t.Fatal(err)
			}
			into = "echo $$ > " + filepath.Join(net, "cgroup.procs")
		}
	}
	args := []string{"-c", fmt.Sprintf(`%s; ulimit -u %d; exec "$0" "$@"`, into, processes), setpriv, fmt.Sprintf("--reuid=%d", user), fmt.Sprintf("--regid=%d", user), "--clear-groups"}
	cmd := exec.Command("bash", append(args, command...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// processesOf lists the processes of a user.
func processesOf(user int) (pids []int) {
	_ = eachProcess(func(pid int) {
		var st unix.Stat_t
		if unix.Stat("/proc/"+strconv.Itoa(pid), &st) == nil && int(st.Uid) == user {
			pids = append(pids, pid)
		}
	})
	return pids
}

// A service that forks without end takes down neither daemon nor keeper, and is
// stopped like any other.
func TestForkBomb(t *testing.T) {
	t.Attr("promise", "P7 F12")
	user := spareUser()
	dir, self, program := placeFor(t, user)
	cmd := ordinary(t, user, 500, self, "bombed", dir, program)
	t.Cleanup(func() {
		for _, pid := range processesOf(user) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the daemon: %v, %s", err, out)
	}
	var b bombed
	if err := json.Unmarshal(out, &b); err != nil {
		t.Fatalf("the daemon says %q", out)
	}
	t.Logf("the keeper's slowest answer %v, stopped in %v, %d commands, %d refused", b.Slowest, b.Stopped, b.Commands, b.Refused)
	if b.Error != "" || b.Slowest > time.Second || b.Stopped > 2*time.Second || b.Refused > 0 || b.Commands == 0 {
		t.Errorf("%+v", b)
	}
	if left := processesOf(user); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

func TestRoomBelow(t *testing.T) {
	t.Parallel()
	const none = unix.RLIM_INFINITY
	for _, test := range []struct {
		own    uint64
		shared []uint64
		want   uint64
	}{
		{own: 5000, want: 4900},
		{own: 5000, shared: []uint64{none, 32768}, want: 4900},
		{own: none, shared: []uint64{none, 32768}, want: 32668},
		{own: 63000, shared: []uint64{42000, none}, want: 41900},
		{own: 63000, shared: []uint64{500}, want: 62900}, // of a container, say: not this user's alone
		{own: 150, want: 0},
		{own: none, want: 0},
	} {
		if got := roomBelow(test.own, test.shared); got != test.want {
			t.Errorf("roomBelow(%d, %d) = %d; want %d", test.own, test.shared, got, test.want)
		}
	}
}

func TestFindGroup(t *testing.T) {
	t.Parallel()
	const v1 = "40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n" +
		"41 30 0:38 / /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids\n" +
		"42 30 0:39 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
	for _, test := range []struct {
		name, controller, memberships, mounts string
		dir                                   string
	}{
		{"hybrid", "", "8:pids:/a\n0::/x/y\n", v1, "/sys/fs/cgroup/unified/x/y"},
		{"a controller", "pids", "8:pids:/a\n0::/x/y\n", v1, "/sys/fs/cgroup/pids/a"},
		{"one of two", "cpuacct", "1:cpu,cpuacct:/c\n", v1, "/sys/fs/cgroup/cpu/c"},
		{"not a member", "memory", "8:pids:/a\n0::/\n", v1, ""},
		{"part of the hierarchy", "", "0::/slice/mine\n", "9 1 0:3 /slice /my\\040groups rw - cgroup2 none rw\n", "/my groups/mine"},
		{"another part", "", "0::/slice/mine\n", "9 1 0:3 /other /sys/fs/cgroup rw - cgroup2 none rw\n", ""},
		{"outside of the namespace", "", "0::/../..\n", v1, ""},
		{"colons in the path", "", "0::/a:b\n", v1, "/sys/fs/cgroup/unified/a:b"},
		{"nonsense", "", "0:\n\n::\n", "\n-\n - \n", ""},
	} {
		g, ok := findGroup(test.controller, []byte(test.memberships), []byte(test.mounts))
		if g.dir != test.dir || ok != (test.dir != "") {
			t.Errorf("%s: %+v, %v; want %q", test.name, g, ok, test.dir)
		}
		if ok && !strings.HasPrefix(g.dir, g.top) {
			t.Errorf("%s: %s is not below %s", test.name, g.dir, g.top)
		}
	}
}
