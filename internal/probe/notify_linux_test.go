package probe

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("PROBE_TEST_NOTIFY"); path != "" {
		if send(path, os.Getenv("PROBE_TEST_TEXT"), nil) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func send(path, text string, files []int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var control []byte
	if files != nil {
		control = unix.UnixRights(files...)
	}
	return unix.Sendmsg(fd, []byte(text), control, &unix.SockaddrUnix{Name: path}, 0)
}

// sendFrom sends from a process that has ended when it returns.
func sendFrom(t *testing.T, path, text string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PROBE_TEST_NOTIFY="+path, "PROBE_TEST_TEXT="+text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

func notifySocket(t *testing.T) *NotifySocket {
	t.Helper()
	s, err := ListenNotify(filepath.Join(t.TempDir(), "n"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Whoever says something that nobody waits for need not wait either.
func TestDiscard(t *testing.T) {
	t.Parallel()
	s := notifySocket(t)
	s.Discard()
	s.Discard()
	held, other, err := os.Pipe() // what comes with BARRIER=1, which waits until it is closed
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for range 5000 { // more than a socket may hold
		if err := send(s.Path(), "STATUS=working", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := send(s.Path(), "BARRIER=1", []int{int(other.Fd())}); err != nil {
		t.Fatal(err)
	}
	other.Close()
	if err := held.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := held.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the barrier is held: %v", err)
	}
}

// watch runs the check until the test ends, and returns what it finds.
func watch(t *testing.T, s *NotifySocket, in *instance) <-chan Finding {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	findings, done := make(chan Finding), make(chan struct{})
	go func() {
		defer close(done)
		Notify{s}.Run(ctx, in, func(f Finding) {
			select {
			case findings <- f:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return findings
}

func TestNotifyFromTheInstance(t *testing.T) {
	t.Parallel()
	s := notifySocket(t)
	info, err := os.Stat(s.Path())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v, %v", info.Mode(), err)
	}
	in := listening()
	in.owns = func(pid int) bool { return pid == os.Getpid() }
	found := watch(t, s, in)
	for _, step := range []struct {
		text string
		want Finding
	}{
		{"", Finding{Detail: "it has not said READY=1"}},
		{"STATUS=loading 1 of 2", Finding{Detail: "it has not said READY=1, but: loading 1 of 2"}},
		{"EXTEND_TIMEOUT_USEC=5000000\nSTATUS=loading 2 of 2\nMAINPID=1", Finding{Detail: "it has not said READY=1, but: loading 2 of 2"}},
		{"READY=1\nSTATUS=serving", Finding{Ready: true}},
		{"STOPPING=1", Finding{Detail: "it says that it stops"}},
		{"STATUS=bye", Finding{Detail: "it has not said READY=1, but: bye"}},
	} {
		if step.text != "" {
			if err := send(s.Path(), step.text, nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-found; got != step.want {
			t.Errorf("after %q: %+v, want %+v", step.text, got, step.want)
		}
	}
}

func TestNotifyOfOthersDoesNotCount(t *testing.T) {
	t.Parallel()
	s := notifySocket(t)
	found := watch(t, s, listening()) // which owns nobody, so not this process
	<-found
	if err := send(s.Path(), "READY=1", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-found:
		t.Errorf("a stranger made it %+v", got)
	case err := <-barrier(t, s):
		if err != nil {
			t.Error(err)
		}
	}
}

func TestNotifyOfAnEndedSenderCounts(t *testing.T) {
	t.Parallel()
	s := notifySocket(t)
	sendFrom(t, s.Path(), "READY=1")
	found := watch(t, s, listening())
	<-found
	if got := <-found; !got.Ready {
		t.Errorf("got %+v", got)
	}
}

func TestNotifyBarrierIsReleased(t *testing.T) {
	t.Parallel()
	s := notifySocket(t)
	in := listening()
	in.owns = func(int) bool { return true }
	found := watch(t, s, in)
	<-found
	if err := <-barrier(t, s); err != nil {
		t.Error(err)
	}
}

// barrier sends BARRIER=1 and gives nil when that is released, so that all that
// was sent before has been taken in.
func barrier(t *testing.T, s *NotifySocket) <-chan error {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	err = send(s.Path(), "BARRIER=1", []int{int(w.Fd())})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	released := make(chan error, 1)
	go func() {
		defer r.Close()
		_ = r.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err := r.Read(make([]byte, 1))
		if errors.Is(err, io.EOF) {
			err = nil
		}
		released <- err
	}()
	return released
}

func TestNotifySocketIsRemoved(t *testing.T) {
	t.Parallel()
	s := notifySocket(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket is left: %v", err)
	}
	if _, err := ListenNotify(filepath.Join(t.TempDir(), string(make([]byte, 120)))); err == nil {
		t.Error("a path that is too long was taken")
	}
}
