package process_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/process"
	"github.com/locald/locald/runtime/runtimetest"
)

// The test binary is the keeper too, a service that listens, and a daemon that
// can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "keeper":
			os.Exit(keeper.Main(os.Args[2:]))
		case "listen":
			os.Exit(listen())
		case "daemon":
			os.Exit(daemon(os.Args[2], os.Args[3]))
		}
	}
	os.Exit(m.Run())
}

const limit = 30 * time.Second

func open(t *testing.T, owner runtime.Owner) *process.Runtime {
	t.Helper()
	r := process.New(keeper.Options{Dir: t.TempDir(), Owner: string(owner), Log: os.Stderr})
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

func shell(_ *testing.T, script string) runtime.Spec {
	return runtime.Spec{Command: []string{"sh", "-c", script}, Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH")}}
}

func output(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := logs.OpenReader(dir).Read(t.Context(), logs.Query{Tail: -1}, func(l logs.Line) error {
		b.Write(l.Data)
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSuite(t *testing.T) {
	runtimetest.Suite(t, runtimetest.Subject{
		Open:   func(t *testing.T, owner runtime.Owner) runtime.Runtime { return open(t, owner) },
		Shell:  shell,
		Output: output,
	})
}

func ownerOf(t *testing.T) runtime.Owner {
	return runtime.Owner(fmt.Sprintf("%s-%x", t.Name(), time.Now().UnixNano()))
}

func specOf(t *testing.T, owner runtime.Owner, service string, command ...string) runtime.Spec {
	spec := shell(t, "")
	spec.Command = command
	spec.Project = runtime.Project{ID: "p", Name: "p", Dir: "/"}
	spec.Owner, spec.Service, spec.Run = owner, service, 1
	spec.Log, spec.Grace = t.TempDir(), time.Second
	return spec
}

func start(t *testing.T, r runtime.Runtime, spec runtime.Spec) runtime.Instance {
	t.Helper()
	in, err := r.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// listen says the port that it listens on, and has a child of another session
// do the same, on all addresses.
func listen() int {
	addr := "127.0.0.1:0"
	if len(os.Args) > 2 {
		addr = "0.0.0.0:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if len(os.Args) == 2 {
		child := exec.Command("/proc/self/exe", "listen", "again")
		child.Stdout = os.Stdout
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	fmt.Println("port", port, os.Getpid())
	_, _ = l.Accept()
	return 0
}

func TestListening(t *testing.T) {
	t.Parallel()
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	owner := ownerOf(t)
	r := open(t, owner)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec := specOf(t, owner, "web", self, "listen")
	in := start(t, r, spec)
	other := start(t, r, specOf(t, owner, "other", "sleep", "60"))
	var want, pids []int
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx := bounded(t); len(want) < 2; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the service says %q", output(t, spec.Log))
		}
		want, pids = nil, nil
		for line := range strings.Lines(output(t, spec.Log)) {
			var port, pid int
			if n, _ := fmt.Sscanf(line, "port %d %d", &port, &pid); n == 2 {
				want, pids = append(want, port), append(pids, pid)
			}
		}
	}
	slices.Sort(want)
	l, ok := in.(runtime.Listener)
	if !ok {
		t.Fatal("instances do not tell where they listen")
	}
	if got, err := l.Listening(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("Listening = %v, %v; want %v", got, err, want)
	}
	exposed, err := in.(runtime.Exposer).Exposed(t.Context())
	if err != nil || len(exposed) != 1 || !exposed[0].Addr().IsUnspecified() {
		t.Errorf("Exposed = %v, %v; want the one that listens everywhere", exposed, err)
	}
	for _, pid := range pids {
		if !l.Owns(pid) {
			t.Errorf("process %d is not owned", pid)
		}
	}
	if l.Owns(other.Info().PID) || l.Owns(os.Getpid()) {
		t.Error("a process of somebody else is owned")
	}
	if o, ok := other.(runtime.Listener); !ok {
		t.Error("instances do not tell where they listen")
	} else if got, err := o.Listening(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("Listening = %v, %v; want nothing", got, err)
	}
}

// Not beside the others: it clears this process of what keepers have left.
func TestKeeperKilled(t *testing.T) {
	owner := ownerOf(t)
	r := open(t, owner)
	var all []runtime.Instance
	for _, service := range []string{"a", "b", "c"} {
		all = append(all, start(t, r, specOf(t, owner, service, "sleep", "60")))
	}
	k, err := r.Keeper(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(k.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The next start waits until nothing is left of the runs before.
	next := specOf(t, owner, "a", "sleep", "60")
	next.Run = 2
	again := start(t, r, next)
	refs, err := r.List(t.Context(), owner)
	if err != nil || len(refs) != 1 || refs[0] != again.Ref() {
		t.Errorf("List = %v, %v; want just %v", refs, err, again.Ref())
	}
	for _, in := range all {
		exit, err := in.Wait(bounded(t))
		if err != nil || exit.Known || exit.Reason == "" || exit.At.IsZero() {
			t.Errorf("Wait = %+v, %v; want an unknown end with a reason", exit, err)
		}
		if err := in.Stop(bounded(t), 0); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if _, err := r.Attach(t.Context(), in.Ref()); !errors.Is(err, runtime.ErrGone) {
			t.Errorf("Attach = %v; want ErrGone", err)
		}
	}
}

// daemon starts a service that forgets its environment, and stays.
func daemon(dir, owner string) int {
	r := process.New(keeper.Options{Dir: dir, Owner: owner, Log: os.Stderr})
	for _, script := range []string{"sleep 60", "exec env -i /bin/sleep 60"} {
		_, err := r.Start(context.Background(), runtime.Spec{
			Project: runtime.Project{ID: "p"}, Service: fmt.Sprintf("s%d", len(script)), Run: 1, Owner: runtime.Owner(owner),
			Command: []string{"/bin/sh", "-c", script}, Dir: "/", Log: dir + "/log",
		})
		if err != nil {
			fmt.Println(err)
			return 1
		}
	}
	k, err := r.Keeper(context.Background())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(k.PID())
	<-k.Lost()
	return 0
}

func TestLeftovers(t *testing.T) {
	t.Parallel()
	dir, owner := t.TempDir(), ownerOf(t)
	cmd := exec.Command("/proc/self/exe", "daemon", dir, string(owner))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGSTOP)
	_ = syscall.Kill(pid, syscall.SIGKILL)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := keeper.Wait(bounded(t), dir); err != nil {
		t.Fatal(err)
	}
	r := open(t, owner)
	refs, err := r.List(t.Context(), owner)
	if err != nil || len(refs) != 2 {
		t.Fatalf("List = %v, %v; want two", refs, err)
	}
	for _, ref := range refs {
		in, err := r.Attach(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		forged := ref
		forged.ID = "00000000" + forged.ID[8:]
		if _, err := r.Attach(t.Context(), forged); !errors.Is(err, runtime.ErrGone) {
			t.Errorf("Attach to another boot = %v; want ErrGone", err)
		}
		waited := make(chan error, 1)
		go func() {
			_, err := in.Wait(t.Context())
			waited <- err
		}()
		for range 2 {
			if err := in.Stop(bounded(t), time.Second); err != nil {
				t.Errorf("Stop: %v", err)
			}
		}
		if err := <-waited; err != nil {
			t.Errorf("Wait: %v", err)
		}
		if exit, err := in.Wait(bounded(t)); err != nil || exit.Known {
			t.Errorf("Wait = %+v, %v; want an unknown end", exit, err)
		}
	}
	if refs, err := r.List(t.Context(), owner); err != nil || len(refs) != 0 {
		t.Errorf("List = %v, %v; want nothing", refs, err)
	}
}

// A command that does not end is ended with its context and with its service.
func TestExecEnds(t *testing.T) {
	t.Parallel()
	owner := ownerOf(t)
	r := open(t, owner)
	in := start(t, r, specOf(t, owner, "web", "sleep", "60"))
	execer, ok := in.(runtime.Execer)
	if !ok {
		t.Fatal("instances do not run commands")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := execer.Exec(ctx, []string{"sleep", "60"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Exec = %v; want DeadlineExceeded", err)
	}
	if refs, err := r.List(t.Context(), owner); err != nil || len(refs) != 1 {
		t.Errorf("List = %v, %v; want the service alone", refs, err)
	}
	running := make(chan error, 1)
	go func() {
		_, _, err := execer.Exec(t.Context(), []string{"sleep", "60"})
		running <- err
	}()
	if err := in.Stop(bounded(t), time.Second); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-running:
		t.Logf("the command ended with its service: %v", err)
	case <-time.After(limit):
		t.Error("the command outlives its service")
	}
	if _, out, err := execer.Exec(bounded(t), []string{"yes"}); err == nil {
		t.Errorf("Exec in what has ended = %d bytes; want an error", len(out))
	}
}
