package ipc_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/locald/locald/ipc"
)

// scripted answers every connection with text and closes it.
func scripted(t *testing.T, text string) ipc.Client {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(conn).ReadString('\n')
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	}()
	return ipc.Client{Socket: l.Addr().String()}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for _, path := range []string{filepath.Join(dir, "missing"), stale} {
		client := ipc.Client{Socket: path}
		if err := client.Call(t.Context(), ipc.CallPing, nil, &ipc.Daemon{}); !errors.Is(err, ipc.ErrNoDaemon) {
			t.Errorf("%s: got %v", filepath.Base(path), err)
		}
	}
}

func TestAPathHeldBySomethingElseIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	link := filepath.Join(dir, "link")
	pipe := filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(file, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir: "is a directory", file: "is a file", link: "is a symbolic link", pipe: "is a pipe"} {
		client := ipc.Client{Socket: path}
		err := client.Call(t.Context(), ipc.CallPing, nil, &ipc.Daemon{})
		var fault *ipc.Error
		if !errors.As(err, &fault) || fault.Code != ipc.CodeDaemonUnavailable || !strings.Contains(fault.Message, want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

func TestAnAnswerThatStopsShortIsCut(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":        "",
		"half a line":    `{"service":"web","event":"star`,
		"no last object": `{"service":"web","event":"failed"}` + "\n",
	} {
		client := scripted(t, text)
		stream, err := client.Stream(t.Context(), ipc.CallUp, ipc.UpArgs{})
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			var e ipc.Event
			err = stream.Next(&e)
		}
		if !errors.Is(err, ipc.ErrCut) {
			t.Errorf("%s: got %v", name, err)
		}
		stream.Close()
	}
}

func TestUnknownFieldsOfAnAnswerAreIgnored(t *testing.T) {
	t.Parallel()
	client := scripted(t, `{"pid":7,"mood":"fine"}`+"\n")
	var d ipc.Daemon
	if err := client.Call(t.Context(), ipc.CallPing, nil, &d); err != nil || d.PID != 7 {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestALogLineThatSpeaksOfEventsIsNotTheEnd(t *testing.T) {
	t.Parallel()
	client := scripted(t, `{"seq":1,"service":"web","line":"{\"event\":\"done\"} {\"error\":1}"}`+"\n"+`{"event":"done"}`+"\n")
	stream, err := client.Stream(t.Context(), ipc.CallLogs, ipc.LogsArgs{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var line ipc.LogLine
	if err := stream.Next(&line); err != nil || line.Seq != 1 {
		t.Fatalf("got %v, %v", line, err)
	}
	if err := stream.Next(&line); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	if err := stream.Next(&line); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: got %v", err)
	}
}

func TestCancellingEndsAStream(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	client := ipc.Client{Socket: serve(t, &ipc.Server{Methods: ipc.Table{ipc.CallUp: blocked(ended)}})}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.Stream(ctx, ipc.CallUp, ipc.UpArgs{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var e ipc.Event
	if err := stream.Next(&e); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := stream.Next(&e); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler got %v", err)
	}
}

func TestAnEnvironmentThatIsTooLargeIsNotSent(t *testing.T) {
	t.Parallel()
	client := ipc.Client{Socket: filepath.Join(t.TempDir(), "none")}
	_, err := client.Stream(t.Context(), ipc.CallUp, ipc.UpArgs{Env: []string{"X=" + strings.Repeat("x", ipc.MaxRequest)}})
	var fault *ipc.Error
	if !errors.As(err, &fault) || fault.Code != ipc.CodeInvalidRequest {
		t.Errorf("got %v", err)
	}
}

func TestPeerPIDIsTheListener(t *testing.T) {
	t.Parallel()
	client := ipc.Client{Socket: serve(t, &ipc.Server{Methods: pinger()})}
	pid, err := client.PeerPID(t.Context())
	if err != nil || pid != os.Getpid() {
		t.Errorf("got %d, %v; want %d", pid, err, os.Getpid())
	}
}
