package daemon

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

func TestFault(t *testing.T) {
	t.Parallel()
	wrong := &config.Error{Problems: []config.Problem{
		{Pos: config.Pos{File: "locald.toml", Line: 3, Column: 1}, Message: "unknown key comand", Hint: "did you mean command?"},
		{Pos: config.Pos{File: "locald.toml", Line: 9, Column: 5}, Message: "no service wbe"},
	}}
	tests := []struct {
		name string
		err  error
		want ipc.Error
	}{
		{"configuration", wrong, ipc.Error{Code: "config_invalid", Message: "unknown key comand", Hint: "did you mean command?", File: "locald.toml", Line: 3, Column: 1}},
		{"configuration, wrapped", fmt.Errorf("shop: %w", wrong), ipc.Error{Code: "config_invalid", Message: "unknown key comand", Hint: "did you mean command?", File: "locald.toml", Line: 3, Column: 1}},
		{"a fault", &runtime.Fault{Code: "port_taken", Hint: "delete port", Err: errors.New("port 3000 is taken")}, ipc.Error{Code: "port_taken", Message: "port 3000 is taken", Hint: "delete port"}},
		{"a fault, wrapped", fmt.Errorf("web: %w", &runtime.Fault{Code: "disk_full", Err: errors.New("no space")}), ipc.Error{Code: "disk_full", Message: "web: no space"}},
		{"damaged state", &state.Damaged{Path: "p.json", Aside: "p.json.bad", Err: errors.New("line 1: EOF")}, ipc.Error{Code: "state_damaged", Message: "p.json is damaged (line 1: EOF); kept as p.json.bad"}},
		{"engine away", fmt.Errorf("list: %w", runtime.ErrUnavailable), ipc.Error{Code: "engine_unavailable", Message: "list: runtime is unavailable"}},
		{"time is up", context.DeadlineExceeded, ipc.Error{Code: "timeout", Message: "context deadline exceeded"}},
		{"told before", fmt.Errorf("up: %w", &ipc.Error{Code: "unknown_service", Message: "no service wbe"}), ipc.Error{Code: "unknown_service", Message: "no service wbe"}},
		{"anything else", errors.New("bad luck"), ipc.Error{Code: "internal", Message: "bad luck"}},
	}
	for _, test := range tests {
		var got *ipc.Error
		if !errors.As(fault(test.err), &got) {
			t.Errorf("%s: no *ipc.Error", test.name)
			continue
		}
		shown := *got
		shown.Problems = nil
		if shown.Error() != test.want.Error() || shown.Code != test.want.Code || shown.Hint != test.want.Hint || shown.File != test.want.File || shown.Line != test.want.Line || shown.Column != test.want.Column {
			t.Errorf("%s:\ngot  %+v\nwant %+v", test.name, shown, test.want)
		}
	}
	var all *ipc.Error
	if errors.As(fault(wrong), &all); len(all.Problems) != 2 || all.Problems[1].Line != 9 {
		t.Errorf("problems: %+v", all.Problems)
	}
	if err := fault(nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}
