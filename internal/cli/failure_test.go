package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

func TestExitStatusOfEveryCode(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]int{
		ipc.CodeConfigInvalid: 2, ipc.CodeUnknownService: 2, ipc.CodeUnknownProject: 2, ipc.CodeInvalidRequest: 2,
		ipc.CodePortTaken: 1, ipc.CodeEngineUnavailable: 1, ipc.CodeDaemonUnavailable: 125, ipc.CodeVersionMismatch: 125,
		ipc.CodeImagePull: 1, ipc.CodeCommandMissing: 1, ipc.CodeWorkdirMissing: 1, ipc.CodeProbeTimeout: 1, ipc.CodeExited: 1,
		ipc.CodeStopFailed: 1, ipc.CodeStateDamaged: 1, ipc.CodeDiskFull: 1, ipc.CodePermissionDenied: 1, ipc.CodeTimeout: 124,
		ipc.CodeInternal: 1, "a_code_of_a_later_version": 1,
	} {
		if got := exitOf(code); got != want {
			t.Errorf("%s: got %d, want %d", code, got, want)
		}
	}
}

func TestErrorsAreToldWithWhatWhyAndWhatToType(t *testing.T) {
	t.Parallel()
	two := []config.Problem{
		{Pos: config.Pos{File: "locald.toml", Line: 2, Column: 1}, Message: `unknown key "comand"`, Hint: "command"},
		{Pos: config.Pos{File: "locald.local.toml", Line: 9, Column: 4}, Message: "bad \x1b]0;x\x07 value"},
	}
	var text strings.Builder
	for _, err := range []error{
		&ipc.Error{Code: ipc.CodeUnknownService, Message: `no service "wbe"`, Hint: "locald up web"},
		&ipc.Error{Code: ipc.CodeConfigInvalid, Message: "two services on port 3000", File: "locald.toml", Line: 7, Column: 8},
		&ipc.Error{Code: ipc.CodeInternal, Message: "two\nlines \x1b[2J and\ra trick"},
		&config.Error{Problems: two[:1]},
		&config.Error{Problems: two},
		fmt.Errorf("state: %w", &runtime.Fault{Code: ipc.CodeDiskFull, Hint: "df -h", Err: errors.New("no space left")}),
		ipc.ErrNoDaemon,
		fmt.Errorf("%w (read: broken)", ipc.ErrCut),
		context.DeadlineExceeded,
		errors.New("something else"),
	} {
		fault := faultOf(err)
		fmt.Fprintf(&text, "%s%sexit %d\n\n", errorText(fault), errorJSON(fault), exitOf(fault.Code))
	}
	golden(t, "errors.golden", text.String())
}

func TestClipNeverExceedsItsColumns(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "plain", "日本語のサービス", "e\u0301te\u0301", "a👩‍👩‍👧b", strings.Repeat("x", 300)} {
		for limit := range 30 {
			if got := clip(text, limit); columnsOf(got) > limit {
				t.Errorf("clip(%q, %d) = %q, %d columns", text, limit, got, columnsOf(got))
			}
		}
		if got := clip(text, 1000); got != text {
			t.Errorf("clip(%q, 1000) = %q", text, got)
		}
	}
}
