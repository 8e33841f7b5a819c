package project

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/locald/locald/internal/env"
	"github.com/locald/locald/runtime"
)

func TestWhatARunWasGiven(t *testing.T) {
	t.Parallel()
	var g given
	if got := g.mask("web", "nothing to hide"); got != "nothing to hide" {
		t.Errorf("before any run: %q", got)
	}
	g.remember("web", []env.Variable{
		{Name: "API_TOKEN", Value: "t0ps3cret", Origin: "locald.toml:4", Secret: true},
		{Name: "PIN_SECRET", Value: "1", Origin: ".env", Secret: true},
		{Name: "HOME_TOKEN", Value: "fromhome", Origin: inherited, Secret: true},
		{Name: "PORT", Value: "3000", Origin: "injected", Hides: ".env"},
		{Name: "LOCALD_RUN", Value: "7", Origin: "injected"},
		{Name: "DSN", Value: "redis://ana:inurl1@host", Origin: "locald.toml:5", Secret: true},
	}, []string{"KEPT_PASSWORD=notpassedon", "HARMLESS=visible"})
	run := g.last("web")
	if len(run.vars) != 4 || run.vars["API_TOKEN"] != "t0ps3cret" || run.vars["PORT"] != "3000" {
		t.Errorf("to compare with the next: %v", run.vars)
	}
	if want := []string{"PORT hides the one in .env"}; !slices.Equal(run.hidden, want) {
		t.Errorf("hidden: %q", run.hidden)
	}
	text := "GET /?token=t0ps3cret: 401 (fromhome), 1 of 3"
	if got, want := g.mask("web", text), "GET /?token=***: 401 (***), 1 of 3"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := g.mask("db", text); got != text {
		t.Errorf("another service's: %q", got)
	}
	if got, want := g.mask("web", "redis://ana:inurl1@host inurl1 notpassedon visible"), "*** *** *** visible"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// An error that quotes what was given is told without it, and stays the error
// that it was.
func TestErrorsAreCovered(t *testing.T) {
	t.Parallel()
	var g given
	g.remember("web", []env.Variable{{Name: "API_TOKEN", Value: "t0ps3cret", Secret: true}}, nil)
	cause := &runtime.Fault{Code: "command_missing", Hint: "did you mean /t0ps3cret?", Err: errors.New("command /t0ps3cret2: not found"), Kind: runtime.ErrInvalid}
	err := g.cover("web", fmt.Errorf("start: %w", cause))
	if got, want := err.Error(), "start: command /***2: not found"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	fault, ok := errors.AsType[*runtime.Fault](err)
	if !ok || fault.Code != "command_missing" || fault.Hint != "did you mean /***?" || !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("%+v", fault)
	}
	if err := g.cover("web", nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	lost := g.cover("web", fmt.Errorf("t0ps3cret: %w", context.Canceled))
	if !errors.Is(lost, context.Canceled) || strings.Contains(lost.Error(), "t0ps3cret") {
		t.Error(lost)
	}
}
