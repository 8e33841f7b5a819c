package ipc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locald/locald/ipc"
)

// serve runs a server until the test ends and returns its socket.
func serve(t *testing.T, s *ipc.Server) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() { // the context has ended by then
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return socket
}

func dial(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := ipc.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func pinger() ipc.Table {
	return ipc.Table{ipc.CallPing: ipc.Answer(func(context.Context, ipc.NoArgs) (ipc.Daemon, error) {
		return ipc.Daemon{PID: 1, Version: "test"}, nil
	})}
}

func ping(t *testing.T, socket string) {
	t.Helper()
	begin := time.Now()
	var d ipc.Daemon
	client := ipc.Client{Socket: socket}
	if err := client.Call(t.Context(), ipc.CallPing, nil, &d); err != nil {
		t.Fatalf("ping: %v", err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("ping took %v", took)
	}
}

func TestARequestMayComeInSingleBytes(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P16 F73")
	conn := dial(t, serve(t, &ipc.Server{Methods: pinger()}))
	for _, b := range []byte(`{"v":1,"call":"ping"}` + "\n") {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if answer, _ := io.ReadAll(conn); !strings.Contains(string(answer), `"version":"test"`) {
		t.Errorf("got %q", answer)
	}
}

func TestClosingTheWritingSideEndsARequest(t *testing.T) {
	t.Parallel()
	conn := dial(t, serve(t, &ipc.Server{Methods: pinger()}))
	if _, err := conn.Write([]byte(`{"v":1,"call":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(conn); !strings.Contains(string(answer), `"version":"test"`) {
		t.Errorf("got %q", answer)
	}
}

func TestAHugeRequestIsRefusedWithoutBeingKept(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P16 F72")
	conn := dial(t, serve(t, &ipc.Server{Methods: pinger()}))
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	chunk := []byte(strings.Repeat("x", 1<<20))
	sent := 0
	for range 64 {
		n, err := conn.Write(chunk)
		sent += n
		if err != nil {
			break
		}
	}
	goruntime.ReadMemStats(&after)
	answer, _ := io.ReadAll(conn)
	if !strings.Contains(string(answer), "invalid_request") {
		t.Errorf("got %q", answer)
	}
	if sent >= 64<<20 {
		t.Errorf("the server took all %d bytes", sent)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

func TestARequestOfExactlyTheLimitIsRead(t *testing.T) {
	t.Parallel()
	conn := dial(t, serve(t, &ipc.Server{Methods: pinger()}))
	request := `{"v":1,"call":"ping"}`
	request += strings.Repeat(" ", ipc.MaxRequest-1-len(request)) + "\n"
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(conn); !strings.Contains(string(answer), `"version":"test"`) {
		t.Errorf("got %q", answer)
	}
}

func TestIdleConnectionsDoNotKeepOthersOut(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P17 F74")
	socket := serve(t, &ipc.Server{Methods: pinger()})
	var idle []net.Conn
	defer func() {
		for _, conn := range idle {
			conn.Close()
		}
	}()
	for range 1000 {
		conn, err := ipc.Dial(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	ping(t, socket)
	// The oldest was dropped to make room; the youngest is still listened to.
	if _, err := idle[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest silent connection got an answer")
	}
	youngest := idle[len(idle)-1]
	if _, err := youngest.Write([]byte(`{"v":1,"call":"ping"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(youngest); !strings.Contains(string(answer), `"version":"test"`) {
		t.Errorf("the youngest got %q", answer)
	}
}

func TestASilentClientIsToldAfterFiveSeconds(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "F74")
	conn := dial(t, serve(t, &ipc.Server{Methods: pinger()}))
	begin := time.Now()
	answer, _ := io.ReadAll(conn)
	if !strings.Contains(string(answer), "no whole request within 5s") {
		t.Errorf("got %q", answer)
	}
	if took := time.Since(begin); took < 4*time.Second || took > 7*time.Second {
		t.Errorf("after %v", took)
	}
}

// blocked is a stream that sends one event and then waits for its context.
func blocked(ended chan<- error) ipc.Method {
	return ipc.Stream(func(ctx context.Context, _ ipc.UpArgs, send func(ipc.Event) error) error {
		if err := send(ipc.Event{Service: "web", Event: ipc.EventStarting}); err != nil {
			ended <- err
			return err
		}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})
}

func TestAClientThatVanishesCancelsItsCall(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "F75")
	ended := make(chan error, 1)
	conn := dial(t, serve(t, &ipc.Server{Methods: ipc.Table{ipc.CallUp: blocked(ended)}}))
	fmt.Fprintln(conn, `{"v":1,"call":"project.up","args":{"dir":"/x"}}`)
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAHalfClosedClientGoesOnReadingUntilItVanishes(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	proceed := make(chan struct{})
	table := ipc.Table{ipc.CallUp: ipc.Stream(func(ctx context.Context, _ ipc.UpArgs, send func(ipc.Event) error) error {
		<-proceed
		if ctx.Err() != nil {
			ended <- errors.New("cancelled by half-closing")
			return ctx.Err()
		}
		_ = send(ipc.Event{Service: "web", Event: ipc.EventStarting})
		<-ctx.Done()
		ended <- nil
		return ctx.Err()
	})}
	conn := dial(t, serve(t, &ipc.Server{Methods: table}))
	fmt.Fprint(conn, `{"v":1,"call":"project.up"}`)
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	close(proceed)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatalf("got %q, %v", line, err)
	}
	conn.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAPanicFailsOnlyItsOwnCall(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "F77")
	reports := make(chan error, 1)
	table := pinger()
	table[ipc.CallDoctor] = ipc.Answer(func(context.Context, ipc.NoArgs) (ipc.Doctor, error) {
		var none []ipc.Check
		return ipc.Doctor{Checks: none[:1]}, nil
	})
	socket := serve(t, &ipc.Server{Methods: table, Report: func(err error) { reports <- err }})
	client := ipc.Client{Socket: socket}
	var fault *ipc.Error
	err := client.Call(t.Context(), ipc.CallDoctor, nil, &ipc.Doctor{})
	if !errors.As(err, &fault) || fault.Code != ipc.CodeInternal {
		t.Errorf("got %v", err)
	}
	if report := <-reports; !strings.Contains(report.Error(), "server_test.go") {
		t.Errorf("the report does not say where: %v", report)
	}
	ping(t, socket)
}

func TestASlowReaderIsCutOff(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	conn := dial(t, serve(t, &ipc.Server{SlowReader: 50 * time.Millisecond, Methods: ipc.Table{ipc.CallLogs: flood(ended, nil)}}))
	fmt.Fprintln(conn, `{"v":1,"call":"logs.read","args":{"tail":-1}}`)
	if err := <-ended; err == nil {
		t.Error("send went on for ever")
	}
}

// flood is a stream of lines without end. It says on sent how many went.
func flood(ended chan<- error, sent chan<- int) ipc.Method {
	return ipc.Stream(func(_ context.Context, _ ipc.LogsArgs, send func(ipc.LogLine) error) error {
		line := ipc.LogLine{Service: "web", Stream: "stdout", Line: strings.Repeat("x", 1000)}
		for n := 1; ; n++ {
			if err := send(line); err != nil {
				ended <- err
				return err
			}
			if sent != nil {
				sent <- n
			}
		}
	})
}

func TestAStoppedFollowerCostsBoundedMemoryAndGoesOnLater(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P11 F50")
	ended := make(chan error, 1)
	sent := make(chan int)
	conn := dial(t, serve(t, &ipc.Server{SlowReader: time.Millisecond, Methods: ipc.Table{ipc.CallLogs: flood(ended, sent).Patient()}}))
	fmt.Fprintln(conn, `{"v":1,"call":"logs.read","args":{"tail":-1,"follow":true}}`)
	// It counts as blocked when nothing more was sent for a while that is long
	// against the patience of other calls.
	last := 0
	for quiet := false; !quiet; {
		select {
		case last = <-sent:
		case err := <-ended:
			t.Fatalf("cut off after %d lines: %v", last, err)
		case <-time.After(200 * time.Millisecond):
			quiet = true
		}
	}
	if last > 4000 {
		t.Errorf("%d lines of 1 kB wait for a reader that takes none", last)
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	for range 10000 {
		<-sent
	}
	conn.Close()
	for {
		select {
		case <-sent:
		case err := <-ended:
			if err == nil {
				t.Error("the stream ended without an error")
			}
			return
		}
	}
}

func TestStoppingTheServerEndsStreamsAndIdleConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	over := make(chan error, 1)
	go func() {
		over <- ipc.Serve(ctx, l, ipc.Table{ipc.CallUp: blocked(ended), ipc.CallLogs: flood(ended, nil).Patient()})
	}()
	idle, streaming, stuck := dial(t, l.Addr().String()), dial(t, l.Addr().String()), dial(t, l.Addr().String())
	fmt.Fprintln(stuck, `{"v":1,"call":"logs.read","args":{"tail":-1,"follow":true}}`)
	if _, err := stuck.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(streaming, `{"v":1,"call":"project.up"}`)
	if _, err := bufio.NewReader(streaming).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-over; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := io.ReadAll(idle); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("idle: %v", err)
	}
}

func TestAStreamWithoutItsLastEventIsTheDaemonsFault(t *testing.T) {
	t.Parallel()
	table := ipc.Table{ipc.CallUp: ipc.Stream(func(_ context.Context, _ ipc.UpArgs, send func(ipc.Event) error) error {
		return send(ipc.Event{Service: "web", Event: ipc.EventFailed})
	})}
	client := ipc.Client{Socket: serve(t, &ipc.Server{Methods: table})}
	stream, err := client.Stream(t.Context(), ipc.CallUp, ipc.UpArgs{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var e ipc.Event
	if err := stream.Next(&e); err != nil || e.Service != "web" {
		t.Fatalf("got %v, %v", e, err)
	}
	var fault *ipc.Error
	if err := stream.Next(&e); !errors.As(err, &fault) || fault.Code != ipc.CodeInternal {
		t.Errorf("got %v", err)
	}
}

func TestAHundredClientsAtOnceAreAllAnswered(t *testing.T) {
	t.Parallel()
	socket := serve(t, &ipc.Server{Methods: pinger()})
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { ping(t, socket) })
	}
	all.Wait()
}
