package engines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/locald/locald/runtime/remote"
)

// ExecCommand is what the process is started with to execute one command in a
// container, for somebody who sits at it. It reads an Execution from descriptor 3
// and writes an Executed to descriptor 4.
const ExecCommand = "exec"

// Execution is a command in a running container of an engine with Docker's API.
type Execution struct {
	Host      string   `json:"host"` // of the engine, as runtime.Engine's At tells it
	Container string   `json:"container"`
	Argv      []string `json:"argv"`
	Env       []string `json:"env"` // added to the container's
	Dir       string   `json:"dir,omitempty"`
	Terminal  bool     `json:"terminal,omitempty"` // standard input is one, and raw
}

// Executed is how it ended.
type Executed struct {
	Code int             `json:"code"`
	Err  *remote.Failure `json:"err,omitempty"`
}

// failed is the exit status of a command that did not come to be executed.
const failed = 125

// Exec executes a command in a container and returns its exit status. dir is the
// state directory. The end of ctx ends the conversation.
func Exec(ctx context.Context, dir string, x Execution, stdin io.Reader, stdout, stderr io.Writer) (code int, err error) {
	argv, err := program(dir)
	if err != nil {
		return failed, err
	}
	question, asking, err := os.Pipe()
	if err != nil {
		return failed, err
	}
	defer question.Close()
	defer asking.Close()
	answering, answer, err := os.Pipe()
	if err != nil {
		return failed, err
	}
	defer answering.Close()
	defer answer.Close()
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], ExecCommand)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.ExtraFiles = []*os.File{question, answer}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return failed, fmt.Errorf("start what speaks to engines: %w", err)
	}
	_ = question.Close()
	_ = answer.Close()
	if err := json.NewEncoder(asking).Encode(x); err != nil {
		return failed, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	_ = asking.Close()
	var done Executed
	told := json.NewDecoder(answering).Decode(&done)
	err = cmd.Wait()
	switch {
	case told == nil:
		return done.Code, done.Err.Unpack()
	case ctx.Err() != nil:
		return failed, ctx.Err()
	}
	return failed, fmt.Errorf("what speaks to engines has ended: %w", errors.Join(err, told))
}
