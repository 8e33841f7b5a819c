package system

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/hack/faultengine"
	"github.com/locald/locald/ipc"
)

const inEngine = `[project]
name = "engine"

[services.box]
image = "locald-test/shell:1"
entrypoint = ["/program"]
command = ["once", "/project/box.notes"]
volumes = ["$PROGRAM:/program:ro", ".:/project"]
backoff = "50ms"

[services.other]
image = "locald-test/shell:1"
entrypoint = ["/program"]
command = ["once", "/project/other.notes"]
volumes = ["$PROGRAM:/program:ro", ".:/project"]
backoff = "50ms"

[services.web]
command = ["$PROGRAM", "once", "web.notes"]
`

// behind is a sandbox of which the engine is a proxy.
func behind(t *testing.T, toml string) (*sandbox, *faultengine.Proxy) {
	t.Helper()
	needEngine(t)
	p, err := faultengine.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	s := newSandbox(t, config(toml))
	s.environ = append(s.environ, "DOCKER_HOST="+p.Host())
	return s, p
}

// awaitStarts returns when a program has noted so many runs: a container runs a
// moment before its program does.
func (s *sandbox) awaitStarts(name string, runs int) {
	s.t.Helper()
	for deadline := time.Now().Add(limit); s.starts(name) < runs && time.Now().Before(deadline); {
		s.status()
	}
}

// prompt fails when something took longer than a promise allows.
func prompt(t *testing.T, what string, began time.Time, most time.Duration) {
	t.Helper()
	if took := time.Since(began); took > most {
		t.Errorf("%s took %v, want %v at most", what, took, most)
	} else {
		t.Logf("%s took %v", what, took.Round(time.Millisecond))
	}
}

// TestEngineHangs: an engine that accepts and never answers is told of within
// five seconds; what is not in it goes on and obeys; what is in it is as it was
// once the engine answers again, without anybody doing anything.
func TestEngineHangs(t *testing.T) {
	promise(t, "P10", "F41")
	s, p := behind(t, inEngine)
	s.run("up")
	before := s.status()
	running(t, before)

	p.On("", "", -1, p.Hang)
	began := time.Now()
	now := s.until("said that the engine hangs", func(now ipc.Status) bool { return of(now, "box").Code == ipc.CodeEngineUnavailable })
	prompt(t, "to say that the engine hangs", began, 5*time.Second)
	for _, name := range []string{"box", "other"} {
		if svc := of(now, name); !strings.Contains(svc.Reason, "hangs") || svc.Hint == "" || svc.State != "running" {
			t.Errorf("%s: %+v", name, svc)
		}
	}
	if web := of(now, "web"); web.PID != of(before, "web").PID || web.Reason != "" {
		t.Errorf("web was %+v and is %+v", of(before, "web"), web)
	}
	began = time.Now()
	if r := s.try("stop", "box"); r.code != 1 || !strings.Contains(r.stderr, "hangs") {
		t.Errorf("stop of what is in the engine: %v", r)
	}
	prompt(t, "to refuse a stop", began, 15*time.Second)
	s.run("restart", "web")
	s.run("status")

	p.Mend()
	s.until("as it was asked for", func(now ipc.Status) bool {
		return of(now, "box").State == "stopped" && of(now, "other").Code == "" && of(now, "other").State == "running"
	})
	s.run("up")
	after := s.status()
	running(t, after)
	if of(after, "other").ContainerID != of(before, "other").ContainerID {
		t.Error("a container that lived was made anew")
	}
	text := s.run("logs", "other", "--no-prefix").stdout
	if !strings.Contains(text, "hangs") || !strings.Contains(text, "[the engine is back]") {
		t.Errorf("the log says of it: %s", text)
	}
	s.awaitStarts("box.notes", 2)
	if of(after, "web").Run != of(before, "web").Run+1 || s.starts("other.notes") != 1 || s.starts("box.notes") != 2 {
		t.Errorf("runs: %+v", after.Services)
	}
	s.exactly(after)
}

// TestEngineRestarts: all connections break, and for a while nobody listens.
// Containers that live are kept, those that ended meanwhile are started again,
// once.
func TestEngineRestarts(t *testing.T) {
	promise(t, "P9", "P10", "F42", "F43", "F45")
	s, p := behind(t, inEngine)
	s.run("up")
	before := s.status()
	running(t, before)

	p.Vanish()
	began := time.Now()
	s.until("said that the engine is away", func(now ipc.Status) bool { return of(now, "box").Code == ipc.CodeEngineUnavailable })
	prompt(t, "to say that the engine is away", began, 5*time.Second)
	s.docker("kill", of(before, "other").ContainerID)
	if err := p.Appear(); err != nil {
		t.Fatal(err)
	}
	after := s.until("back", func(now ipc.Status) bool {
		return of(now, "other").Run == 2 && of(now, "other").State == "running" && of(now, "box").Code == ""
	})
	if box := of(after, "box"); box.ContainerID != of(before, "box").ContainerID || box.Run != 1 {
		t.Errorf("box was %+v and is %+v", of(before, "box"), box)
	}
	s.awaitStarts("other.notes", 2)
	if got, kept := s.starts("other.notes"), s.starts("box.notes"); got != 2 || kept != 1 {
		t.Errorf("other was started %d times and box %d times", got, kept)
	}
	s.exactly(s.status())

	// The answer to a creation, and that to a start, are lost.
	create := p.On("POST", "/containers/create", 1, faultengine.Swallow)
	start := p.On("POST", "/start", 1, faultengine.Swallow)
	s.run("restart", "box")
	<-create.Hit
	<-start.Hit
	s.exactly(s.status())
}

// TestContainersTouchedByOthers: what somebody does to a container with the
// engine's own commands shows within two seconds and is answered as the service
// says.
func TestContainersTouchedByOthers(t *testing.T) {
	promise(t, "P9", "F44", "F48", "F49")
	s, _ := behind(t, inEngine+`
[services.stubborn]
image = "locald-test/shell:1"
command = ["sh", "-c", "trap '' TERM; while :; do sleep 100 & wait; done"]
stop_timeout = "1s"
`)
	s.run("up")
	before := s.status()
	running(t, before)

	for _, does := range [][]string{{"rm", "-f"}, {"kill"}} {
		other := of(s.status(), "other")
		began := time.Now()
		s.docker(append(does, other.ContainerID)...)
		done := time.Since(began) // the engine takes its time
		s.until("seen to have ended", func(now ipc.Status) bool {
			return of(now, "other").Run > other.Run || of(now, "other").State != "running"
		})
		prompt(t, "to see docker "+does[0], began, 2*time.Second+done)
		s.until("running again", func(now ipc.Status) bool {
			return of(now, "other").Run == other.Run+1 && of(now, "other").State == "running"
		})
	}
	if history := s.run("status", "--history", "other"); !strings.Contains(history.stdout, "removed by someone else") {
		t.Errorf("the history does not say who: %s", history.stdout)
	}

	for _, does := range []struct{ verb, health string }{{"pause", "unhealthy"}, {"unpause", "none"}} {
		began := time.Now()
		s.docker(does.verb, of(s.status(), "other").ContainerID)
		done := time.Since(began)
		s.until(does.health, func(now ipc.Status) bool {
			other := of(now, "other")
			return other.State == "running" && other.Health == does.health && (other.Reason == "somebody has paused it") == (does.verb == "pause")
		})
		prompt(t, "to see docker "+does.verb, began, 2*time.Second+done)
	}

	// A name is not what a container is known by.
	box := of(before, "box")
	s.docker("rename", box.ContainerID, "renamed-"+box.ContainerID[:12])
	s.run("stop", "box")
	s.run("start", "box")
	if again := of(s.status(), "box"); again.Run != box.Run+1 || again.State != "running" {
		t.Errorf("box after a rename: %+v", again)
	}

	// The name that the next run would have is somebody else's.
	named := of(s.status(), "box")
	name := strings.TrimPrefix(strings.TrimSpace(s.docker("inspect", "-f", "{{.Name}}", named.ContainerID)), "/")
	next := strings.TrimSuffix(name, fmt.Sprint(named.Run)) + fmt.Sprint(named.Run+1)
	foreign := strings.TrimSpace(s.docker("create", "--name", next, "locald-test/shell:1", "true"))
	t.Cleanup(func() { s.docker("rm", "-f", foreign) })
	if r := s.run("restart", "box"); !strings.Contains(r.stdout, "container "+next+" exists and was not made by locald") {
		t.Errorf("restart with the name taken: %v", r)
	}
	if again := of(s.status(), "box"); again.State != "running" || again.Run != named.Run+2 {
		t.Errorf("box after its name was taken: %+v", again)
	}
	s.docker("inspect", foreign) // it is still there

	began := time.Now()
	s.run("stop", "stubborn")
	prompt(t, "to stop what ignores SIGTERM", began, 6*time.Second)
	if history := s.run("status", "--history", "stubborn"); !strings.Contains(history.stdout, "KILL") && !strings.Contains(history.stdout, "137") {
		t.Errorf("the history does not say that it was killed: %s", history.stdout)
	}
}
