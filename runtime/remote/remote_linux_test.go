package remote_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/process"
	"github.com/locald/locald/runtime/remote"
	"github.com/locald/locald/runtime/runtimetest"
)

// The test binary is the keeper too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "keeper" {
		os.Exit(keeper.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// pair is both ends of a connection. They do not serve yet.
func pair(t *testing.T) (here, there *remote.Peer) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var peers [2]*remote.Peer
	for i, fd := range fds {
		peers[i] = peerOf(t, fd)
	}
	return peers[0], peers[1]
}

func peerOf(tb testing.TB, fd int) *remote.Peer {
	tb.Helper()
	file := os.NewFile(uintptr(fd), "pair")
	conn, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		tb.Fatal(err)
	}
	p := remote.NewPeer(conn.(*net.UnixConn)) //nolint:forcetypeassert // it is one
	tb.Cleanup(func() { _ = p.Close() })
	return p
}

// processes is the process runtime, offered at the other end.
func processes(t *testing.T, owner runtime.Owner) runtime.Runtime {
	t.Helper()
	r := process.New(keeper.Options{Dir: t.TempDir(), Owner: string(owner), Log: os.Stderr})
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	here, there := pair(t)
	remote.Offer(there, func(name string) (runtime.Runtime, error) {
		if name != "process" {
			return nil, fmt.Errorf("no runtime %q", name)
		}
		return r, nil
	})
	go there.Serve()
	go here.Serve()
	return remote.New("process", runtime.Process, remote.Fixed(here))
}

func shell(_ *testing.T, script string) runtime.Spec {
	return runtime.Spec{Command: []string{"sh", "-c", script}, Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH")}}
}

// TestSuite is the contract, over a connection.
func TestSuite(t *testing.T) {
	runtimetest.Suite(t, runtimetest.Subject{
		Open:  processes,
		Shell: shell,
		Output: func(t *testing.T, dir string) string {
			t.Helper()
			var b strings.Builder
			err := logs.OpenReader(dir).Read(t.Context(), logs.Query{Tail: -1}, func(l logs.Line) error {
				b.Write(append(l.Data, '\n'))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return b.String()
		},
	})
}

// TestErrors: what callers act on comes through, however deep it was.
func TestErrors(t *testing.T) {
	cause := &runtime.Fault{Service: "web", Code: "image_pull", Hint: "docker login", Err: errors.New("401"), Kind: runtime.ErrInvalid}
	for name, sent := range map[string]error{
		"a fault":    fmt.Errorf("pull: %w", cause),
		"survivors":  fmt.Errorf("stop: %w", &runtime.Survivors{Left: []runtime.Survivor{{PID: 7, Reason: "belongs to root"}}}),
		"gone":       fmt.Errorf("attach: %w", runtime.ErrGone),
		"a deadline": fmt.Errorf("ping: %w", context.DeadlineExceeded),
		"plain":      errors.New("no space left"),
	} {
		t.Run(name, func(t *testing.T) {
			here, there := pair(t)
			remote.Handle(there, "fail", func(context.Context, struct{}) (struct{}, error) { return struct{}{}, sent })
			go there.Serve()
			go here.Serve()
			_, got := remote.Call[struct{}](t.Context(), here, "fail", struct{}{})
			if got == nil || got.Error() != sent.Error() {
				t.Errorf("got %v, want %v", got, sent)
			}
			for _, kind := range []error{runtime.ErrGone, runtime.ErrInvalid, runtime.ErrUnavailable, context.DeadlineExceeded} {
				if errors.Is(got, kind) != errors.Is(sent, kind) {
					t.Errorf("is it %v? got %t, want %t", kind, errors.Is(got, kind), errors.Is(sent, kind))
				}
			}
			want, isFault := errors.AsType[*runtime.Fault](sent)
			fault, ok := errors.AsType[*runtime.Fault](got)
			if ok != isFault || ok && (fault.Code != want.Code || fault.Hint != want.Hint || fault.Service != want.Service || fault.Error() != want.Error()) {
				t.Errorf("got fault %+v, want %+v", fault, want)
			}
			left, ok := errors.AsType[*runtime.Survivors](got)
			if _, isLeft := errors.AsType[*runtime.Survivors](sent); ok != isLeft || ok && left.Left[0].PID != 7 {
				t.Errorf("got survivors %+v", left)
			}
		})
	}
}

// TestCancel: a context that ends is told, and the other end has the last word.
func TestCancel(t *testing.T) {
	here, there := pair(t)
	begun := make(chan struct{})
	remote.Handle(there, "wait", func(ctx context.Context, _ struct{}) (string, error) {
		close(begun)
		<-ctx.Done()
		return "tidied up", nil
	})
	go there.Serve()
	go here.Serve()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	got, err := remote.Call[string](ctx, here, "wait", struct{}{})
	if got != "tidied up" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestReports: what is reported comes in order and before the answer.
func TestReports(t *testing.T) {
	here, there := pair(t)
	remote.HandleReports(there, "count", func(_ context.Context, to int, report func(any)) (string, error) {
		for i := range to {
			report(i)
		}
		return "done", nil
	})
	go there.Serve()
	go here.Serve()
	next := 0
	got, err := remote.CallReports[string](t.Context(), here, "count", 1000, func(i int) {
		if i != next {
			t.Errorf("got %d after %d", i, next-1)
		}
		next = i + 1
	})
	if got != "done" || err != nil || next != 1000 {
		t.Errorf("got %q, %v after %d reports", got, err, next)
	}
}

// TestFiles: a file that is sent is the same file.
func TestFiles(t *testing.T) {
	here, there := pair(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	remote.HandleFiles(there, "pipe", func(context.Context, struct{}) ([]*os.File, error) { return []*os.File{write}, nil })
	go there.Serve()
	go here.Serve()
	files, err := remote.CallFiles(t.Context(), here, "pipe", struct{}{})
	if err != nil || len(files) != 1 {
		t.Fatalf("got %d files, %v", len(files), err)
	}
	_, _ = files[0].WriteString("through")
	_ = files[0].Close()
	got := make([]byte, 32)
	n, _ := read.Read(got)
	if string(got[:n]) != "through" {
		t.Errorf("read %q", got[:n])
	}
	if _, err := read.Read(got); err == nil {
		t.Error("the other end has kept the file open")
	}
}

// TestLost: when the other process is gone every call says so, and what it had
// is ended through the one that follows.
func TestLost(t *testing.T) {
	owner := runtime.Owner(fmt.Sprintf("lost-%x", time.Now().UnixNano()))
	r := process.New(keeper.Options{Dir: t.TempDir(), Owner: string(owner), Log: os.Stderr})
	t.Cleanup(func() { _ = r.Close() })
	connect := func() *remote.Peer {
		here, there := pair(t)
		remote.Offer(there, func(string) (runtime.Runtime, error) { return r, nil })
		go there.Serve()
		go here.Serve()
		return here
	}
	first := connect()
	current := first
	rt := remote.New("process", runtime.Process, func(context.Context) (*remote.Peer, error) { return current, nil })
	spec := shell(t, "sleep 60")
	spec.Project, spec.Service, spec.Run, spec.Owner = runtime.Project{ID: "p"}, "s", 1, owner
	in, err := rt.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	if _, err := rt.List(t.Context(), owner); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("List without the other process: %v", err)
	}
	current = connect()
	exit, err := in.Wait(t.Context())
	if err != nil || exit.Known || exit.Reason == "" {
		t.Errorf("Wait: %+v, %v", exit, err)
	}
	if refs, err := rt.List(t.Context(), owner); len(refs) > 0 || err != nil {
		t.Errorf("left: %v, %v", refs, err)
	}
	again, err := in.Wait(t.Context())
	if err != nil || again != exit {
		t.Errorf("Wait again: %+v, %v", again, err)
	}
}

// BenchmarkCall is what a call costs more than in one process.
func BenchmarkCall(b *testing.B) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	var peers [2]*remote.Peer
	for i, fd := range fds {
		peers[i] = peerOf(b, fd)
	}
	remote.Handle(peers[1], "echo", func(_ context.Context, text string) (string, error) { return text, nil })
	go peers[0].Serve()
	go peers[1].Serve()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := remote.Call[string](b.Context(), peers[0], "echo", "text"); err != nil {
			b.Fatal(err)
		}
	}
}
