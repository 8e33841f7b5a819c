package builtin_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/builtin"
)

// child is the first child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		if first, _, ok := strings.Cut(string(text), " "); ok {
			n, err := strconv.Atoi(first)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

// What somebody does to a container behind locald's back is seen at once, told,
// and leaves nothing.
func TestBehindTheBack(t *testing.T) {
	kill := func(t *testing.T, pid int) {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	const removed = "(removed by someone else)"
	for _, test := range []struct {
		name string
		do   func(t *testing.T, r *builtin.Runtime, in runtime.Instance)
		says string
	}{
		{"the process that stands for it is killed", func(t *testing.T, _ *builtin.Runtime, in runtime.Instance) { kill(t, in.Info().PID) }, "killed by SIGKILL"},
		{"its first process is killed", func(t *testing.T, _ *builtin.Runtime, in runtime.Instance) { kill(t, child(t, in.Info().PID)) }, "killed by SIGKILL"},
		{"its program is killed", func(t *testing.T, _ *builtin.Runtime, in runtime.Instance) {
			kill(t, child(t, child(t, in.Info().PID)))
		}, "killed by SIGKILL"},
		{"its directory is removed", func(t *testing.T, r *builtin.Runtime, in runtime.Instance) {
			if err := os.RemoveAll(r.At(in.Ref().Run)); err != nil {
				t.Fatal(err)
			}
		}, removed},
		{"its directory is moved away", func(t *testing.T, r *builtin.Runtime, in runtime.Instance) {
			if err := os.Rename(r.At(in.Ref().Run), filepath.Join(t.TempDir(), "away")); err != nil {
				t.Fatal(err)
			}
		}, removed},
		{"its socket is removed", func(t *testing.T, r *builtin.Runtime, in runtime.Instance) {
			if err := os.Remove(filepath.Join(r.At(in.Ref().Run), "control")); err != nil {
				t.Fatal(err)
			}
		}, removed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := open(t, runtime.Owner(t.Name()))
			spec := runtime.Spec{
				Project: runtime.Project{ID: "p", Name: "p", Dir: "/"}, Service: "web", Run: 1, Owner: runtime.Owner(t.Name()),
				Command: []string{"sleep", "1000"}, Log: filepath.Join(t.TempDir(), "log"), Image: &runtime.Image{Name: shellImage(t)},
			}
			if err := r.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
				t.Fatal(err)
			}
			in, err := r.Start(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			test.do(t, r, in)
			exit, err := in.Wait(t.Context())
			t.Logf("seen after %v", time.Since(began))
			if err != nil || !strings.Contains(exit.String(), test.says) {
				t.Errorf("%v, %v; want %s", exit, err, test.says)
			}
			if err := in.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
