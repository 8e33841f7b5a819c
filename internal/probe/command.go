package probe

import (
	"bytes"
	"context"
	"errors"

	"github.com/locald/locald/runtime"
)

// Runner runs a command and says how it ended, and what it wrote. It returns
// soon after ctx has ended, with nothing of the command left. Its error means
// that the command could not be run.
type Runner func(ctx context.Context, command []string) (runtime.Exit, []byte, error)

// Command is ready when a command exits with 0.
type Command struct {
	Args []string
	On   Runner // where it runs; nil is inside the instance, which must then be a runtime.Execer
	Policy
}

// Run implements Check. It returns when ctx ends.
func (c Command) Run(ctx context.Context, in runtime.Instance, report func(Finding)) {
	run := c.On
	if run == nil {
		inside, ok := in.(runtime.Execer)
		if !ok {
			report(Finding{Detail: "health: a command cannot be run inside this service"})
			return
		}
		run = inside.Exec
	}
	c.steadily(ctx, report, func(ctx context.Context) string {
		exit, output, err := run(ctx, c.Args)
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return "health command: no end in time"
		case err != nil:
			return "health command: " + err.Error()
		case exit.Known && exit.Code == 0:
			return ""
		}
		why := "health command " + exit.String()
		if last := lastLine(output); last != "" {
			why += ": " + last
		}
		return why
	})
}

func lastLine(output []byte) string {
	const longest = 200
	output = bytes.TrimSpace(output)
	output = output[bytes.LastIndexByte(output, '\n')+1:]
	return string(output[:min(len(output), longest)])
}
