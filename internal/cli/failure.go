package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// The exit statuses of docs/manual/commands.md.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNothing     = 3
	exitTimeout     = 124
	exitUnavailable = 125
	exitNoExec      = 126
	exitNotFound    = 127
)

// exitStatus ends a command with a status and nothing more to say.
type exitStatus int

func (e exitStatus) Error() string { return "exit status " + strconv.Itoa(int(e)) }

// exitOf is the status for a code of an error. Codes that are not known here
// come from a newer daemon, and mean that something failed.
func exitOf(code string) int {
	switch code {
	case ipc.CodeConfigInvalid, ipc.CodeUnknownService, ipc.CodeUnknownProject, ipc.CodeInvalidRequest:
		return exitUsage
	case ipc.CodeTimeout:
		return exitTimeout
	case ipc.CodeDaemonUnavailable, ipc.CodeVersionMismatch:
		return exitUnavailable
	}
	return exitFailed
}

// usage is an error in how a command was typed.
func usage(cmd *cobra.Command, format string, args ...any) *ipc.Error {
	return &ipc.Error{
		Code:    ipc.CodeInvalidRequest,
		Message: fmt.Sprintf(format, args...),
		Hint:    cmd.CommandPath() + " --help",
	}
}

// faultOf is any error as people see it.
func faultOf(err error) *ipc.Error {
	var fault *ipc.Error
	if errors.As(err, &fault) {
		return fault
	}
	var invalid *config.Error
	if errors.As(err, &invalid) && len(invalid.Problems) > 0 {
		return invalidConfig(invalid.Problems)
	}
	var known *runtime.Fault
	if errors.As(err, &known) {
		return &ipc.Error{Code: known.Code, Message: err.Error(), Hint: known.Hint, Service: known.Service}
	}
	switch {
	case errors.Is(err, ipc.ErrNoDaemon):
		return &ipc.Error{Code: ipc.CodeDaemonUnavailable, Message: "no daemon is running", Hint: "locald up"}
	case errors.Is(err, ipc.ErrCut):
		return &ipc.Error{Code: ipc.CodeDaemonUnavailable, Message: err.Error(), Hint: "locald server logs"}
	case errors.Is(err, context.DeadlineExceeded):
		return &ipc.Error{Code: ipc.CodeTimeout, Message: err.Error()}
	}
	return &ipc.Error{Code: ipc.CodeInternal, Message: err.Error()}
}

func invalidConfig(problems []config.Problem) *ipc.Error {
	first := problems[0]
	fault := &ipc.Error{
		Code: ipc.CodeConfigInvalid, Message: first.Message, Hint: first.Hint, Service: first.Service,
		File: first.Pos.File, Line: first.Pos.Line, Column: first.Pos.Column,
	}
	for _, p := range problems {
		fault.Problems = append(fault.Problems, ipc.Problem{
			Message: p.Message, Hint: p.Hint, File: p.Pos.File, Line: p.Pos.Line, Column: p.Pos.Column,
		})
	}
	return fault
}

// report says what went wrong, if anything did, and returns the exit status.
func (a *app) report(ctx context.Context, cmd *cobra.Command, err error) int {
	var status exitStatus
	var signalled *interrupt
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(context.Cause(ctx), &signalled) && errors.Is(err, context.Canceled):
		return 128 + int(signalled.signal)
	}
	fault := faultOf(err)
	if a.wantsJSON(cmd) {
		a.stderr.say(errorJSON(fault))
	} else {
		a.stderr.say(errorText(fault))
	}
	if fault.Exit != 0 {
		return fault.Exit
	}
	return exitOf(fault.Code)
}

// wantsJSON reports whether the command that failed was asked for JSON. What was
// typed behind a flag that is wrong, and the environment, were not looked at
// by then.
func (a *app) wantsJSON(cmd *cobra.Command) bool {
	if cmd == nil {
		return false
	}
	if f := cmd.Flags().Lookup("json"); f != nil {
		typed := a.args
		if i := slices.Index(typed, "--"); i >= 0 {
			typed = typed[:i]
		}
		set, _ := strconv.ParseBool(a.getenv("LOCALD_JSON"))
		if f.Value.String() == "true" || !f.Changed && (set || slices.Contains(typed, "--json")) {
			return true
		}
	}
	f := cmd.Flags().Lookup("format")
	return f != nil && f.Value.String() == "json"
}

func errorJSON(fault *ipc.Error) string {
	return jsonLine(struct {
		Error *ipc.Error `json:"error"`
	}{fault})
}

// jsonLine is v as one line.
func jsonLine(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "{}\n" // our own types always encode
	}
	return b.String()
}

// errorText is an error as it is printed: one line for what and why, one for
// the hint; a line each for all that is wrong with a configuration.
func errorText(fault *ipc.Error) string {
	if len(fault.Problems) < 2 {
		return "locald: " + oneProblem(ipc.Problem{
			Message: fault.Message, Hint: fault.Hint, File: fault.File, Line: fault.Line, Column: fault.Column,
		})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "locald: the configuration is invalid: %d problems\n", len(fault.Problems))
	for _, p := range fault.Problems {
		b.WriteString(oneProblem(p))
	}
	return b.String()
}

// oneProblem is "file:line:column: message" and its hint.
func oneProblem(p ipc.Problem) string {
	text := p.Message
	if at := (config.Pos{File: p.File, Line: p.Line, Column: p.Column}).String(); at != "" && !strings.HasPrefix(text, at) {
		text = at + ": " + text
	}
	text = safe(text) + "\n"
	if p.Hint != "" {
		text += "hint: " + safe(p.Hint) + "\n"
	}
	return text
}
