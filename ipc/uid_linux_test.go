package ipc_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/locald/locald/ipc"
)

const otherUser = 4243

// TestMain lets the test binary be another process: one that connects to the
// socket in IPC_TEST_DIAL, listens at IPC_TEST_LISTEN, or listens at IPC_TEST_DIE
// and ends when it has read a request.
func TestMain(m *testing.M) {
	if socket := os.Getenv("IPC_TEST_DIAL"); socket != "" {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Fprintln(conn, `{"v":1,"call":"ping"}`)
		_, _ = io.Copy(os.Stdout, conn)
		os.Exit(0)
	}
	if socket := os.Getenv("IPC_TEST_LISTEN"); socket != "" {
		l, err := net.Listen("unix", socket)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("listening")
		_ = ipc.Serve(context.Background(), l, nil)
		os.Exit(0)
	}
	if socket := os.Getenv("IPC_TEST_DIE"); socket != "" {
		l, err := net.Listen("unix", socket)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("listening")
		conn, err := l.Accept()
		if err == nil {
			_, _ = bufio.NewReader(conn).ReadString('\n')
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// asOther is the test binary as another user, with one more variable.
func asOther(t *testing.T, variable string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(openDir(t), "ipc.test")
	syscall.ForkLock.RLock() // a child that is being forked would have it open for writing, and then it cannot be executed
	err = os.WriteFile(binary, self, 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = append(os.Environ(), variable)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUser, Gid: otherUser}}
	return cmd
}

// openDir is a directory that every user can enter and write to.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ipc") // nobody else can enter what is above t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAnotherUserIsNotAnswered(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P17 S3")
	socket := filepath.Join(openDir(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	ended := make(chan error, 1)
	go func() { ended <- ipc.Serve(ctx, l, pinger()) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	out, err := asOther(t, "IPC_TEST_DIAL="+socket).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "permission_denied") {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestNothingIsSentToAnotherUsersSocket(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P17 S3")
	socket := filepath.Join(openDir(t), "s")
	cmd := asOther(t, "IPC_TEST_LISTEN="+socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if _, err := ipc.Dial(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("got %v", err)
	}
	// The file's owner can be forged by whoever may chown; the peer's cannot.
	if err := os.Chown(socket, os.Getuid(), os.Getgid()); err != nil {
		t.Fatal(err)
	}
	if _, err := ipc.Dial(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "is served by uid 4243") {
		t.Errorf("got %v", err)
	}
}
