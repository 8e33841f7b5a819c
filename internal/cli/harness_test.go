package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

var update = flag.Bool("update", false, "write what is printed into the golden files")

// TestMain lets the test binary be locald: with CLI_TEST_LOCALD set it runs its
// arguments, with a daemon that answers ping and ends when it is told to.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_LOCALD") == "" {
		os.Exit(m.Run())
	}
	os.Exit(Main(context.Background(), os.Args[1:], IO{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ(), Dir: "/", Listen: hear,
	}, Hooks{Version: "test", Serve: smallDaemon}))
}

func hear() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	return signals
}

// smallDaemon notes its start in the file CLI_TEST_STARTS, and fails to start
// when CLI_TEST_FAULT says how.
func smallDaemon(ctx context.Context, o ServeOptions) error {
	switch os.Getenv("CLI_TEST_FAULT") {
	case "error":
		return &ipc.Error{Code: ipc.CodeStateDamaged, Message: "the state is of a later locald", Hint: "update locald"}
	case "crash":
		fmt.Fprintln(os.Stderr, "panic: something is \x1b]0;owned\x07 wrong")
		os.Exit(2)
	}
	held, err := state.Lock(o.Places)
	if err != nil {
		return err
	}
	defer held.Release()
	if starts, err := os.OpenFile(os.Getenv("CLI_TEST_STARTS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		fmt.Fprintln(starts, os.Getpid())
		starts.Close()
	}
	_ = os.Remove(o.Places.Socket)
	l, err := net.Listen("unix", o.Places.Socket)
	if err != nil {
		return err
	}
	if o.Ready != nil {
		fmt.Fprintln(o.Ready, `{"ok":true}`)
		o.Ready.Close()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return ipc.Serve(ctx, l, ipc.Table{
		ipc.CallPing: ipc.Answer(func(context.Context, ipc.NoArgs) (ipc.Daemon, error) {
			return ipc.Daemon{PID: os.Getpid(), Version: o.Version, Protocol: ipc.Protocol, Socket: o.Places.Socket}, nil
		}),
		ipc.CallStopAll: ipc.Stream(func(_ context.Context, _ ipc.NoArgs, send func(ipc.Event) error) error {
			defer cancel()
			zero := 0
			return send(ipc.Event{Event: ipc.EventDone, Exit: &zero})
		}),
	})
}

// bench is a project, a place for state, and the world of a command.
type bench struct {
	t       *testing.T
	dir     string // the project's
	socket  string
	environ []string
	columns int // of a terminal; 0 is none
	stdin   io.Reader
	signals chan os.Signal
}

const twoServices = `[project]
name = "shop"
[services.web]
command = "sleep 1000"
[services.db]
type = "worker"
command = "sleep 1000"
`

var fixedNow = time.Date(2026, 11, 23, 10, 5, 0, 0, time.UTC)

func newBench(t *testing.T, toml string) *bench {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: filepath.Join(root, "shop"), socket: filepath.Join(root, "s"), signals: make(chan os.Signal)}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if toml != "" {
		b.write("locald.toml", toml)
	}
	b.environ = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + root, "XDG_DATA_HOME=" + root,
		state.SandboxVar + "=1", state.SocketVar + "=" + b.socket,
	}
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// serve answers calls until the test ends; ping is added.
func (b *bench) serve(table ipc.Table) {
	b.t.Helper()
	if _, ok := table[ipc.CallPing]; !ok {
		table[ipc.CallPing] = ipc.Answer(func(context.Context, ipc.NoArgs) (ipc.Daemon, error) {
			return ipc.Daemon{
				PID: 4711, Version: "0.1.0", Protocol: ipc.Protocol, StartedAt: fixedNow.Add(-time.Hour).Format(time.RFC3339Nano),
				State: "/home/ana/.local/share/locald", Socket: "/tmp/locald.sock", Log: "/tmp/locald.log", Wanted: 2, Restored: true,
			}, nil
		})
	}
	l, err := net.Listen("unix", b.socket)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx := b.t.Context()
	ended := make(chan error, 1)
	go func() { ended <- ipc.Serve(ctx, l, table) }()
	b.t.Cleanup(func() { // the context has ended by then
		if err := <-ended; err != nil {
			b.t.Errorf("serve: %v", err)
		}
	})
}

// result is what a command did.
type result struct {
	status         int
	stdout, stderr string
}

// run runs a command to its end.
func (b *bench) run(args ...string) result {
	var out, errs buffer
	status := Main(context.Background(), args, b.io(&out, &errs), b.hooks())
	return result{status, out.String(), errs.String()}
}

func (b *bench) io(out, errs io.Writer) IO {
	return IO{
		Stdin: b.stdin, Stdout: out, Stderr: errs, Environ: b.environ, Dir: b.dir, Listen: func() <-chan os.Signal { return b.signals },
		Size: func(io.Writer) (int, int, bool) { return b.columns, 24, b.columns > 0 },
		Now:  func() time.Time { return fixedNow },
	}
}

func (*bench) hooks() Hooks {
	return Hooks{Version: "0.1.0", Serve: func(context.Context, ServeOptions) error { return nil }}
}

// buffer is a bytes.Buffer that may be read while it is written, and waited on.
type buffer struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await returns when the text contains want.
func (b *buffer) await(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		b.mu.Lock()
		if bytes.Contains(b.text.Bytes(), []byte(want)) {
			b.mu.Unlock()
			return
		}
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%q did not appear in\n%s", want, b.String())
		}
	}
}

// golden compares got with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s\ngot\n%s\nwant\n%s", path, got, want)
	}
}

func at(seconds float64) time.Time {
	return fixedNow.Add(-time.Minute).Add(time.Duration(seconds * float64(time.Second)))
}

func ptr[T any](v T) *T { return &v }

// sends is a method that streams events.
func sends[A any](events ...ipc.Event) ipc.Method {
	return ipc.Stream(func(_ context.Context, _ A, send func(ipc.Event) error) error {
		for _, e := range events {
			if err := send(e); err != nil {
				return err
			}
		}
		return nil
	})
}

func replies[A, R any](r R) ipc.Method {
	return ipc.Answer(func(context.Context, A) (R, error) { return r, nil })
}

// finish is the last event of a stream.
func finish(exit int, status *ipc.Status) ipc.Event {
	e := ipc.Event{Time: at(3), Event: ipc.EventDone, Exit: &exit, Status: status}
	if exit != 0 {
		e.Event = ipc.EventFailed
	}
	return e
}
