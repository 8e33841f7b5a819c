package daemon

import (
	"errors"
	"testing"

	"github.com/locald/locald/internal/project"
)

func TestChoose(t *testing.T) {
	down, off := errors.New("docker is not running"), errors.New("builtin engine: no user namespaces")
	docker, podman, builtin := seenEngine{name: "docker"}, seenEngine{name: "podman"}, seenEngine{name: "builtin"}
	without := func(e seenEngine, why error) seenEngine { e.why = why; return e }
	named := func(e seenEngine) seenEngine { e.named = true; return e }
	for _, c := range []struct {
		it   string
		seen []seenEngine
		want project.Engine
	}{
		{"takes the first that answers", []seenEngine{docker, podman, builtin}, project.Engine{Name: "docker"}},
		{"passes over what is down, and says so", []seenEngine{without(docker, down), builtin}, project.Engine{Name: "builtin", Why: "docker is not running"}},
		{"says of all why", []seenEngine{without(docker, down), without(builtin, off), {name: "containerd"}}, project.Engine{Name: "containerd", Why: "docker is not running; builtin engine: no user namespaces"}},
		{"does not leave the one that is named", []seenEngine{named(without(docker, down)), builtin}, project.Engine{Name: "auto"}},
		{"takes the one that is named", []seenEngine{named(docker), builtin}, project.Engine{Name: "docker"}},
		{"has no answer", []seenEngine{without(docker, down), without(builtin, off)}, project.Engine{Name: "auto"}},
	} {
		if got := choose(c.seen); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.it, got, c.want)
		}
	}
}
