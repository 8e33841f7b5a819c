package ipc_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/locald/locald/ipc"
)

// hanging is a socket that connections are accepted at, and nothing more.
func hanging(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestADaemonThatHangsIsDoubted(t *testing.T) {
	t.Parallel()
	client, err := ipc.Open(t.Context(), hanging(t))
	if err != nil {
		t.Fatal(err)
	}
	hangs := errors.New("it hangs")
	client.Doubt = func(context.Context) error { return hangs }
	if err := client.Call(t.Context(), ipc.CallPing, nil, &ipc.Daemon{}); !errors.Is(err, hangs) {
		t.Errorf("got %v", err)
	}
}

func TestADaemonThatIsSlowIsWaitedFor(t *testing.T) {
	t.Parallel()
	doubted := make(chan struct{})
	socket := serve(t, &ipc.Server{Methods: ipc.Table{ipc.CallPing: ipc.Answer(func(ctx context.Context, _ ipc.NoArgs) (ipc.Daemon, error) {
		select {
		case <-doubted:
			return ipc.Daemon{PID: 4711}, nil
		case <-ctx.Done():
			return ipc.Daemon{}, ctx.Err()
		}
	})}})
	client, err := ipc.Open(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	client.Doubt = func(context.Context) error { close(doubted); return nil }
	var d ipc.Daemon
	if err := client.Call(t.Context(), ipc.CallPing, nil, &d); err != nil || d.PID != 4711 {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestACallOfADaemonThatEndsIsMadeAgain(t *testing.T) {
	t.Parallel()
	dying := filepath.Join(t.TempDir(), "s")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "IPC_TEST_DIE="+dying)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	client, err := ipc.Open(t.Context(), dying)
	if err != nil {
		t.Fatal(err)
	}
	socket := serve(t, &ipc.Server{Methods: pinger()})
	client.Revive = func(ctx context.Context) (*ipc.Client, error) { return ipc.Open(ctx, socket) }
	var d ipc.Daemon
	if err := client.Call(t.Context(), ipc.CallPing, nil, &d); err != nil || d.PID == 0 {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestADaemonThatHangsUpIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	client := scripted(t, "")
	asked := 0
	client.Revive = func(ctx context.Context) (*ipc.Client, error) {
		asked++
		return ipc.Open(ctx, client.Socket)
	}
	if err := client.Call(t.Context(), ipc.CallPing, nil, &ipc.Daemon{}); !errors.Is(err, ipc.ErrCut) || asked != 1 {
		t.Errorf("got %v after %d looks for another", err, asked)
	}
	client = scripted(t, `{"pid":`) // it has begun to answer
	client.Revive = func(context.Context) (*ipc.Client, error) {
		t.Error("another was looked for")
		return nil, io.EOF
	}
	if err := client.Call(t.Context(), ipc.CallPing, nil, &ipc.Daemon{}); !errors.Is(err, ipc.ErrCut) {
		t.Errorf("got %v", err)
	}
}
