package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/runtime/container"
	"github.com/locald/locald/runtime/remote"
)

const (
	questionDescriptor = 3
	answerDescriptor   = 4
)

// execute executes one command in a container: see engines.Exec.
func execute() int {
	question, answer := os.NewFile(questionDescriptor, "question"), os.NewFile(answerDescriptor, "answer")
	unix.CloseOnExec(questionDescriptor)
	unix.CloseOnExec(answerDescriptor)
	var x engines.Execution
	if err := json.NewDecoder(question).Decode(&x); err != nil {
		fmt.Fprintln(os.Stderr, "locald engines exec: it is started by locald exec only")
		return 2
	}
	ctx, end := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer end()
	var resize chan [2]uint
	if x.Terminal {
		resize = make(chan [2]uint, 1)
		go watchSize(ctx, resize)
	}
	code, err := container.ExecTTY(ctx, x.Host, x.Container, x.Argv, x.Env, x.Dir, x.Terminal, os.Stdin, os.Stdout, os.Stderr, resize)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err := json.NewEncoder(answer).Encode(engines.Executed{Code: code, Err: remote.Pack(err)}); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return 1
	}
	return 0
}

// watchSize sends the size of the terminal, rows first, at once and with every
// change.
func watchSize(ctx context.Context, resize chan<- [2]uint) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for {
		if columns, rows, err := term.GetSize(int(os.Stdin.Fd())); err == nil {
			select {
			case resize <- [2]uint{uint(rows), uint(columns)}:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
