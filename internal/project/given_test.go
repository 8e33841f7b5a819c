package project

import (
	"slices"
	"testing"

	"github.com/locald/locald/internal/env"
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
	})
	run := g.last("web")
	if len(run.vars) != 3 || run.vars["API_TOKEN"] != "t0ps3cret" || run.vars["PORT"] != "3000" {
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
}
