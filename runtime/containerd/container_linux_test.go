package containerd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	hackcontainerd "github.com/locald/locald/hack/containerd"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/containerd"
)

// owner is one that no other test has.
func owner(t *testing.T) runtime.Owner {
	t.Helper()
	return runtime.Owner(fmt.Sprintf("test-%x", time.Now().UnixNano()))
}

func (b *bench) spec(t *testing.T, service, image string, command ...string) runtime.Spec {
	t.Helper()
	return runtime.Spec{
		Project: runtime.Project{ID: "p-" + string(b.owner), Name: "shop", Dir: b.dir},
		Service: service, Run: 1, Owner: b.owner, Command: command, Log: t.TempDir(), Grace: time.Second,
		Image: &runtime.Image{Name: image},
	}
}

func (b *bench) shell(t *testing.T, script string) runtime.Spec {
	t.Helper()
	return b.spec(t, "web", imageNamed(t, "shell:1"), "sh", "-c", script)
}

func (b *bench) probe(t *testing.T, service string, instructions ...string) runtime.Spec {
	t.Helper()
	return b.spec(t, service, imageNamed(t, "probe:1"), instructions...)
}

// up starts spec and sees to it that it is removed.
func (b *bench) up(t *testing.T, spec runtime.Spec) runtime.Instance {
	t.Helper()
	if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	in, err := b.Start(t.Context(), spec)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
		defer cancel()
		if err := errors.Join(in.Stop(ctx, 0), in.Remove(ctx)); err != nil {
			t.Errorf("at the end: %v", err)
		}
	})
	return in
}

// saying waits until the log holds a text.
func saying(t *testing.T, spec runtime.Spec, text string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(limit)
	for !strings.Contains(output(t, spec.Log), text) {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("the log never held %q; it holds %q", text, output(t, spec.Log))
		}
	}
}

func wait(t *testing.T, in runtime.Instance) runtime.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	exit, err := in.Wait(ctx)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return exit
}

// got waits for the next word of a channel.
func got[T comparable](t *testing.T, from <-chan T, want T) {
	t.Helper()
	select {
	case is := <-from:
		if is != want {
			t.Fatalf("told %v; want %v", is, want)
		}
	case <-time.After(limit):
		t.Fatalf("never told %v", want)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	return n
}

func TestEverythingOfASpecReachesTheContainer(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "seed"), []byte("planted"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := b.probe(t, "web", "env=GREETING", "id", "cat=/seed/seed", "write=/scratch/x:fits", "cat=/scratch/x",
		"write=/data/x:kept", "cat=/data/x", "write=/x:no", "hold")
	spec.Env = []string{"GREETING=good morning, $HOME"}
	spec.Image.User, spec.Image.Workdir = "1234:5678", "/work"
	spec.Image.Mounts = []runtime.Mount{{Source: dir, Target: "/seed", ReadOnly: true}, {Source: "data", Target: "/data"}}
	spec.Image.Tmpfs = []string{"/scratch:mode=1777"}
	spec.Image.Memory, spec.Image.CPUs = 64<<20, 0.5
	spec.Image.Labels = map[string]string{"team": "blue"}
	in := b.up(t, spec)
	saying(t, spec, "fits")
	for _, want := range []string{"GREETING=good morning, $HOME\n", "uid 1234 gid 5678", "dir /work", "planted"} {
		if out := output(t, spec.Log); !strings.Contains(out, want) {
			t.Errorf("output = %q; want %q in it", out, want)
		}
	}
	// A volume that is new is root's, so the user cannot write, and neither can he
	// to the image.
	if exit := wait(t, in); exit.Code == 0 {
		t.Errorf("Wait = %+v, %q; want a failure to write", exit, output(t, spec.Log))
	}
	told := b.server.ctr(t, "containers", "info", in.Info().ContainerID)
	for _, want := range []string{`"team": "blue"`, `"dev.locald.service": "web"`, `"limit": 67108864`, `"quota": 50000`} {
		if !strings.Contains(told, want) {
			t.Errorf("containerd was not told %s:\n%s", want, told)
		}
	}
	if strings.Contains(told, "good morning") {
		t.Error("containerd was told the environment, which may be secret")
	}
	if has, err := b.HasVolume(t.Context(), spec.Project.ID, "data"); !has || err != nil {
		t.Errorf("HasVolume = %v, %v; want it", has, err)
	}
	if err := b.RemoveVolumes(t.Context(), spec.Project.ID, "web", "data"); err != nil {
		t.Error(err)
	}
}

func TestAReadOnlyRoot(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	spec := b.shell(t, "echo no > /x; echo yes > /tmp/x && echo wrote")
	spec.Image.ReadOnly, spec.Image.Tmpfs = true, []string{"/tmp"}
	wait(t, b.up(t, spec))
	if out := output(t, spec.Log); !strings.Contains(out, "Read-only file system") || !strings.Contains(out, "wrote") {
		t.Errorf("output = %q; want the root read-only and the tmpfs not", out)
	}
}

// What Docker's default seccomp profile and capabilities do not let a container do.
func TestAContainerIsHeldIn(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	spec := b.shell(t, "cat /proc/self/status; ls /proc | sort -n | head -3; echo > /.locald/init")
	wait(t, b.up(t, spec))
	out := output(t, spec.Log)
	for _, want := range []string{"CapBnd:\t00000000a80425fb", "Seccomp:\t2", "NoNewPrivs:\t0", "Read-only file system"} {
		if !strings.Contains(out, want) {
			t.Errorf("output = %q; want %q in it", out, want)
		}
	}
}

func TestServicesReachEachOther(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	go func() {
		for {
			c, err := host.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello from the host\n")
			_ = c.Close()
		}
	}()
	api := b.probe(t, "api", "listen=8080", "hold")
	api.Image.Ports = []runtime.Port{{Host: freePort(t), Container: 8080}}
	b.up(t, api)
	published := net.JoinHostPort("127.0.0.1", strconv.Itoa(api.Image.Ports[0].Host))
	said, err := firstLine(published)
	for until := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(until); said, err = firstLine(published) {
		<-time.After(10 * time.Millisecond) // the program may not listen yet
	}
	if said != "hello 8080\n" {
		t.Errorf("the published port answered %q, %v", said, err)
	}
	port := host.Addr().(*net.TCPAddr).Port
	web := b.probe(t, "web", "connect=api:8080", fmt.Sprintf("connect=host.docker.internal:%d", port))
	web.Image.Reach = []int{port}
	wait(t, b.up(t, web))
	for _, want := range []string{"connected api:8080: hello 8080", fmt.Sprintf("connected host.docker.internal:%d: hello from the host", port)} {
		if out := output(t, web.Log); !strings.Contains(out, want) {
			t.Errorf("output = %q; want %q in it", out, want)
		}
	}
	alone := b.probe(t, "alone", fmt.Sprintf("connect=127.0.0.1:%d", port))
	alone.Image.Host = true
	wait(t, b.up(t, alone))
	if out := output(t, alone.Log); !strings.Contains(out, "hello from the host") {
		t.Errorf("on the host's network: %q", out)
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	spec := b.probe(t, "web", "hold")
	spec.Image.Ports = []runtime.Port{{Host: taken.Addr().(*net.TCPAddr).Port, Container: 80}}
	if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
		t.Fatal(err)
	}
	_, err = b.Start(t.Context(), spec)
	if fault, ok := errors.AsType[*runtime.Fault](err); !ok || fault.Code != "port_taken" || !strings.Contains(fault.Hint, "ss -ltnp") {
		t.Errorf("Start = %v; want port_taken and how to find who has it", err)
	}
	if left := b.server.ctr(t, "containers", "ls", "-q", `labels."dev.locald.instance"==`+string(b.owner)); left != "" {
		t.Errorf("left in containerd: %s", left)
	}
}

func TestTheChecksOfAnImage(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	in := b.up(t, b.spec(t, "web", imageNamed(t, "healthy:1"), "write=/tmp/healthy:", "hold"))
	reporter, ok := in.(runtime.HealthReporter)
	if !in.Info().Healthcheck || !ok {
		t.Fatalf("Info = %+v; want a health check", in.Info())
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	changes := make(chan runtime.Health, 10)
	go func() { _ = reporter.Health(ctx, func(h runtime.Health) { changes <- h }) }()
	got(t, changes, runtime.HealthStarting)
	got(t, changes, runtime.Healthy)
}

func TestMemoryIsTold(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	spec := b.probe(t, "web", "eat=200", "hold")
	spec.Image.Memory = 32 << 20
	exit := wait(t, b.up(t, spec))
	if exit.Code != 137 || exit.Reason != "killed by the kernel for memory" {
		t.Errorf("Wait = %+v; want 137, for memory", exit)
	}
}

func TestSomebodyPausesIt(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	in := b.up(t, b.shell(t, "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	changes := make(chan bool, 10)
	go func() { _ = in.(runtime.Pauser).Paused(ctx, func(paused bool) { changes <- paused }) }()
	got(t, changes, false)
	b.server.ctr(t, "tasks", "pause", in.Info().ContainerID)
	got(t, changes, true)
	b.server.ctr(t, "tasks", "resume", in.Info().ContainerID)
	got(t, changes, false)
	b.server.ctr(t, "tasks", "pause", in.Info().ContainerID)
	got(t, changes, true)
	if err := in.Stop(ctx, limit); err != nil {
		t.Fatalf("Stop while it is paused: %v", err)
	}
	if exit := wait(t, in); exit.Code != 3 {
		t.Errorf("Wait = %+v; want the script's own 3", exit)
	}
}

func TestSomebodyKillsIt(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	killed := b.up(t, b.shell(t, "sleep 60"))
	b.server.ctr(t, "tasks", "kill", "-s", "SIGKILL", killed.Info().ContainerID)
	if exit := wait(t, killed); exit.Code != 137 || time.Since(exit.At) > limit {
		t.Errorf("Wait = %+v; want 137", exit)
	}
	removed := b.spec(t, "gone", imageNamed(t, "shell:1"), "sleep", "60")
	in := b.up(t, removed)
	b.server.ctr(t, "tasks", "rm", "-f", in.Info().ContainerID)
	if exit := wait(t, in); exit.Code != 137 {
		t.Errorf("Wait = %+v; want 137", exit)
	}
}

// The process that stands for a container is killed.
func TestTheOuterProcessIsKilled(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	spec := b.shell(t, "echo up; sleep 60")
	in := b.up(t, spec)
	saying(t, spec, "up")
	refs, err := b.process.List(t.Context(), b.owner)
	if err != nil || len(refs) != 1 {
		t.Fatalf("processes: %v, %v; want the outer one", refs, err)
	}
	beside, err := b.process.Attach(t.Context(), refs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(beside.Info().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, in); exit.Signal != "SIGKILL" || exit.Reason != "the process that stands for it was killed" {
		t.Errorf("Wait = %+v; want who was killed", exit)
	}
	if refs, err := b.List(t.Context(), b.owner); err != nil || len(refs) != 0 {
		t.Errorf("List = %v, %v; want nothing", refs, err)
	}
}

// A daemon is killed, and what it had is left to its keeper and to the next one.
func TestADaemonIsKilled(t *testing.T) {
	t.Parallel()
	who := owner(t)
	b := open(t, sharedServer(t), who, nil)
	spec := b.shell(t, "trap '' TERM; echo up; while :; do sleep 0.2; done")
	in := b.up(t, spec)
	saying(t, spec, "up")
	// Paused it cannot end with its keeper.
	b.server.ctr(t, "tasks", "pause", in.Info().ContainerID)
	next := containerd.New(containerd.Options{Owner: who, Dir: b.dir, Process: b.process, Getenv: b.server.env})
	defer next.Close()
	refs, err := next.List(t.Context(), who)
	if err != nil || len(refs) != 1 || refs[0] != in.Ref() {
		t.Fatalf("List = %v, %v; want %v", refs, err, in.Ref())
	}
	left, err := next.Attach(t.Context(), refs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Stop(t.Context(), 10*time.Millisecond); err != nil {
		t.Fatalf("Stop: %v", err)
	}
	exit := wait(t, left)
	if err := left.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	// The one that started it is still there, unlike after a kill, and clears away
	// what ended: one of the two sees how.
	if own := wait(t, in); exit.Code != 137 && (exit.Known || own.Code != 137) {
		t.Errorf("Wait = %+v, and for who started it %+v; want 137", exit, own)
	}
	if _, err := next.Attach(t.Context(), refs[0]); !errors.Is(err, runtime.ErrGone) {
		t.Errorf("Attach = %v; want ErrGone", err)
	}
}

// containerd is killed and started again: what runs runs on.
func TestContainerdComesAndGoes(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	own, err := hackcontainerd.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	s := server{own}
	news := make(chan bool, 10)
	b := open(t, s, owner(t), func(o *containerd.Options) { o.Away = func(err error) { news <- err != nil } })
	first := b.shell(t, "echo up; while [ ! -e /shared/go ]; do sleep 0.05; done; echo it goes on; exit 5")
	second := b.spec(t, "other", imageNamed(t, "shell:1"), "sleep", "60")
	shared := t.TempDir()
	first.Image.Mounts = []runtime.Mount{{Source: shared, Target: "/shared"}}
	ends, stays := b.up(t, first), b.up(t, second)
	saying(t, first, "up")
	s.Kill(syscall.SIGKILL)
	got(t, news, true)
	if err := b.Ping(t.Context()); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("Ping = %v; want ErrUnavailable", err)
	}
	if _, err := b.List(t.Context(), b.owner); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("List = %v; want ErrUnavailable", err)
	}
	if err := os.WriteFile(filepath.Join(shared, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, ends); exit.Code != 5 || !strings.Contains(output(t, first.Log), "it goes on") {
		t.Errorf("Wait = %+v, %q; want 5 and what it wrote", exit, output(t, first.Log))
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	got(t, news, false)
	if refs, err := b.List(t.Context(), b.owner); err != nil || len(refs) != 1 || refs[0] != stays.Ref() {
		t.Errorf("List = %v, %v; want just %v", refs, err, stays.Ref())
	}
	exit, out, err := stays.(runtime.Execer).Exec(t.Context(), []string{"echo", "still here"})
	if err != nil || exit.Code != 0 || !strings.Contains(string(out), "still here") {
		t.Errorf("Exec = %+v, %q, %v", exit, out, err)
	}
}

func TestLook(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	if found := containerd.Look(t.Context(), s.env); found.Err != nil || found.Version == "" || found.Source != "CONTAINERD_ADDRESS" {
		t.Errorf("Look = %+v; want its version", found)
	}
	dir := t.TempDir()
	nobody := filepath.Join(dir, "nobody.sock")
	if l, err := net.ListenUnix("unix", &net.UnixAddr{Name: nobody, Net: "unix"}); err != nil {
		t.Fatal(err)
	} else {
		l.SetUnlinkOnClose(false)
		_ = l.Close()
	}
	for address, want := range map[string]string{filepath.Join(dir, "none.sock"): "there is no", nobody: "nobody answers"} {
		found := containerd.Look(t.Context(), func(name string) string {
			return map[string]string{"CONTAINERD_ADDRESS": address}[name]
		})
		fault, ok := errors.AsType[*runtime.Fault](found.Err)
		if !ok || !errors.Is(found.Err, runtime.ErrUnavailable) || fault.Hint == "" || !strings.Contains(found.Err.Error(), want) {
			t.Errorf("Look at %s = %+v; want %q and a hint", address, found, want)
		}
	}
}

func firstLine(address string) (string, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return bufio.NewReader(conn).ReadString('\n')
}
