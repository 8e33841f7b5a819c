package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"syscall"
	"time"
)

// service is a daemon that we started.
type service struct {
	cmd   *exec.Cmd
	said  *tail
	ended chan struct{}
	err   error // how it ended; after that
}

// serviceOf starts a daemon and returns when its socket answers.
func serviceOf(ctx context.Context, cmd *exec.Cmd, socket string) (*service, error) {
	s := &service{cmd: cmd, said: &tail{}, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = s.said, s.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for us, who end it
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(s.ended)
		s.err = cmd.Wait()
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("unix", socket); err == nil {
			return s, conn.Close()
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return nil, fmt.Errorf("%v: %w: %s", cmd.Args, s.err, s.said.text)
		case <-ctx.Done():
			_ = s.end()
			return nil, ctx.Err()
		}
	}
}

// end ends the daemon.
func (s *service) end() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return nil //nolint:nilerr // it has ended
	}
	select {
	case <-s.ended: // with a status of its own
		return nil
	case <-time.After(20 * time.Second):
		return s.cmd.Process.Kill()
	}
}
