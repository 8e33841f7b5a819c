package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	client "github.com/containerd/containerd/v2/client"
)

// patience is how long containerd has to begin.
const patience = 60 * time.Second

// Server is one containerd.
type Server struct {
	dir string
	cmd *exec.Cmd
}

// New makes the place for a containerd that Start starts.
func New() (*Server, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("containerd is for root")
	}
	if _, err := exec.LookPath("containerd"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "locald-ctd-") // short: a socket's name is
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	return s, os.WriteFile(s.config(), fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.tracing"]
[grpc]
address = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), s.Address()), 0o600)
}

func (s *Server) config() string { return filepath.Join(s.dir, "config.toml") }

// Address is its socket.
func (s *Server) Address() string { return filepath.Join(s.dir, "c.sock") }

// Start returns once it answers.
func (s *Server) Start() error {
	output, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	s.cmd = exec.Command("containerd", "--config", s.config(), "--log-level", "warn")
	s.cmd.Stdout, s.cmd.Stderr = output, output
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			text, _ := os.ReadFile(output.Name())
			return fmt.Errorf("%w\n%s", err, text)
		}
	}
}

func (s *Server) answers(ctx context.Context) error {
	c, err := client.New(s.Address())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Version(ctx)
	return err
}

// Kill ends it with a signal. Its containers go on.
func (s *Server) Kill(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig)
	_ = s.cmd.Wait()
}

// Close ends it and removes all that it had.
func (s *Server) Close() error {
	if s.cmd != nil {
		s.Kill(syscall.SIGTERM)
	}
	return os.RemoveAll(s.dir)
}
