package container_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/hack/faultengine"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
)

func TestACreateOfWhichTheAnswerIsLostIsNotMadeTwice(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P9 F45")
	for _, step := range []string{"/containers/create", "/start", "/networks/create"} {
		p := newProxy(t)
		b := newBench(t, container.Options{Getenv: p.Env})
		f := p.On("POST", step, 1, faultengine.Swallow)
		spec := b.probe(t, "out=up", "trap=3", "hold")
		instance := b.up(t, spec)
		<-f.Hit
		saying(t, spec, "up")
		mine := "label=dev.locald.instance=" + string(b.owner)
		if got := docker(t, "ps", "-aq", "--no-trunc", "--filter", mine); got != instance.Info().ContainerID {
			t.Errorf("after a lost answer to %s: containers %q; want one, %s", step, got, instance.Info().ContainerID)
		}
		if got := strings.Fields(docker(t, "network", "ls", "-q", "--filter", mine)); len(got) != 1 {
			t.Errorf("after a lost answer to %s: networks %q; want one", step, got)
		}
		if err := instance.Stop(t.Context(), limit); err != nil {
			t.Error(err)
		}
		if exit := wait(t, instance); exit.Code != 3 {
			t.Errorf("after a lost answer to %s: %+v; want the probe's own 3", step, exit)
		}
	}
}

func TestAContainerThatAppearsAfterItsStartHasFailedIsRemoved(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P9 F45")
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.Env})
	if err := b.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.On("POST", "/containers/create", 1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		forward.ServeHTTP(httptest.NewRecorder(), r)
		go p.Vanish() // waits for this request
		faultengine.Drop(w, r, forward)
	})
	if _, err := b.Start(t.Context(), b.probe(t, "hold")); !errors.Is(err, runtime.ErrUnavailable) {
		t.Fatalf("Start = %v; want ErrUnavailable", err)
	}
	mine := "label=dev.locald.instance=" + string(b.owner)
	if docker(t, "ps", "-aq", "--filter", mine) == "" {
		t.Fatal("the engine has no container: the test did not set up what it tests")
	}
	p.Mend()
	appear(t, p)
	until(t, "container and network are removed", func() bool {
		return docker(t, "ps", "-aq", "--filter", mine) == "" && docker(t, "network", "ls", "-q", "--filter", mine) == ""
	})
}

func TestAnAbsenceOfTheEngineConcludesNothingAndLosesNothing(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P10 F42")
	p := newProxy(t)
	away := make(chan error, 10)
	b := newBench(t, container.Options{Getenv: p.Env, Away: func(err error) { away <- err }})
	lives := b.probe(t, "lines=50", "out=ready", "sleep=4s", "lines=50", "trap=3", "out=more", "hold")
	living := b.up(t, lives)
	diesSpec := b.probe(t, "out=up", "hold")
	diesSpec.Service = "other"
	dying := b.up(t, diesSpec)
	saying(t, lives, "ready")
	saying(t, diesSpec, "up")

	p.Vanish()
	if err := <-away; !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("Away(%v); want ErrUnavailable", err)
	}
	docker(t, "kill", "-s", "KILL", dying.Info().ContainerID)
	soon, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if exit, err := dying.Wait(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait = %+v, %v while the engine is away; want that it goes on waiting", exit, err)
	}
	for name, call := range map[string]func() error{
		"List":  func() error { _, err := b.List(t.Context(), b.owner); return err },
		"Start": func() error { _, err := b.Start(t.Context(), b.probe(t, "hold")); return err },
		"Stop":  func() error { return living.Stop(t.Context(), time.Second) },
	} {
		if err := call(); !errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("%s = %v while the engine is away; want ErrUnavailable", name, err)
		}
	}

	appear(t, p)
	if err := <-away; err != nil {
		t.Errorf("Away(%v); want nil, for it is back", err)
	}
	if exit := wait(t, dying); exit.Code != 137 {
		t.Errorf("Wait = %+v; want the 137 it ended with", exit)
	}
	saying(t, lives, "more")
	if err := living.Stop(t.Context(), limit); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, living); exit.Code != 3 {
		t.Errorf("Wait = %+v; want the probe's own 3", exit)
	}
	var want strings.Builder
	for _, word := range []string{"ready", "more"} {
		for i := range 50 {
			fmt.Fprintln(&want, "out", i)
		}
		fmt.Fprintln(&want, word)
	}
	if got := read(t, lives.Log, "stdout"); got != want.String()+"terminated\n" {
		t.Errorf("output = %q; want each line once", got)
	}
}

func TestAnExitIsSeenAlthoughItsEventIsLost(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P10 F43")
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.Env})
	spec := b.probe(t, "out=up", "hold")
	instance := b.up(t, spec)
	saying(t, spec, "up")
	// The next subscription is held up until the container has ended, and the
	// engine is asked to replay nothing.
	ended := make(chan struct{})
	p.On("GET", "/events", 1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		select {
		case <-ended:
		case <-r.Context().Done():
		}
		query := r.URL.Query()
		query.Del("since")
		r.URL.RawQuery = query.Encode()
		forward.ServeHTTP(w, r)
	})
	p.Cut()
	docker(t, "kill", "-s", "KILL", instance.Info().ContainerID)
	docker(t, "wait", instance.Info().ContainerID)
	close(ended)
	if exit := wait(t, instance); exit.Code != 137 {
		t.Errorf("Wait = %+v; want 137", exit)
	}
}

func TestAnEngineThatHangsInTheMiddleIsGivenUp(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P10 F41")
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.Env})
	spec := b.probe(t, "out=up", "hold")
	instance := b.up(t, spec)
	saying(t, spec, "up")
	p.On("", "", -1, p.Hang)
	begun := time.Now()
	if _, err := b.Start(t.Context(), b.probe(t, "hold")); !errors.Is(err, runtime.ErrUnavailable) || !strings.Contains(err.Error(), "hangs") {
		t.Errorf("Start = %v; want ErrUnavailable, saying that it hangs", err)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("Start took %v", took)
	}
	for name, call := range map[string]func() error{
		"List": func() error { _, err := b.List(t.Context(), b.owner); return err },
		"Stop": func() error { return instance.Stop(t.Context(), time.Second) },
	} {
		begun := time.Now()
		err := call()
		if !errors.Is(err, runtime.ErrUnavailable) || !strings.Contains(err.Error(), "hangs") {
			t.Errorf("%s = %v; want ErrUnavailable, saying that it hangs", name, err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
	p.Mend()
	if err := instance.Stop(t.Context(), 0); err != nil {
		t.Errorf("Stop = %v when the engine answers again", err)
	}
}

// TestAnEngineThatHangsIsNoticed: nothing breaks when an engine hangs, and yet
// whoever has containers in it is told within five seconds, and when it is over.
func TestAnEngineThatHangsIsNoticed(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P10 F41")
	p := newProxy(t)
	away := make(chan error, 10)
	b := newBench(t, container.Options{Getenv: p.Env, Away: func(err error) { away <- err }})
	spec := b.probe(t, "out=up", "hold")
	b.up(t, spec)
	saying(t, spec, "up")
	p.On("", "", -1, p.Hang)
	began := time.Now()
	err := <-away
	if took := time.Since(began); !errors.Is(err, runtime.ErrUnavailable) || !strings.Contains(err.Error(), "hangs") || took > 5*time.Second {
		t.Errorf("Away(%v) after %v; want that it hangs, within 5s", err, took)
	}
	p.Mend()
	if err := <-away; err != nil {
		t.Errorf("Away(%v); want nil, for it answers again", err)
	}
}

func TestAnEngineThatHangsDuringAStartLeavesNothingForLong(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.Env})
	p.On("POST", "/start", 1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		p.On("", "", -1, p.Hang)
		p.Hang(w, r, forward)
	})
	if _, err := b.Start(t.Context(), b.probe(t, "hold")); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("Start = %v; want ErrUnavailable", err)
	}
	p.Mend()
	p.Cut() // as an engine that is started again does
	mine := "label=dev.locald.instance=" + string(b.owner)
	until(t, "container and network are removed", func() bool {
		return docker(t, "ps", "-aq", "--filter", mine) == "" && docker(t, "network", "ls", "-q", "--filter", mine) == ""
	})
}

func TestACallMayTakeLongWhileTheEngineLives(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.Env})
	p.On("POST", "/start", 1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		select {
		case <-time.After(6 * time.Second):
		case <-r.Context().Done():
		}
		forward.ServeHTTP(w, r)
	})
	if exit := wait(t, b.up(t, b.probe(t, "exit=3"))); exit.Code != 3 {
		t.Errorf("Wait = %+v; want 3", exit)
	}
}

func TestAClosedRuntimeAnswers(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	instance, err := b.Start(t.Context(), b.probe(t, "hold"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := instance.Wait(t.Context()); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("Wait = %v; want ErrUnavailable", err)
	}
	if _, err := b.Start(t.Context(), b.probe(t, "hold")); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("Start = %v; want ErrUnavailable", err)
	}
}

// TestWhatADaemonThatIsGoneHadAskedForIsRemoved: the engine starts a container
// after it was asked what there is.
func TestWhatADaemonThatIsGoneHadAskedForIsRemoved(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P9 F46")
	var kept runtime.RunID
	b := newBench(t, container.Options{Keeps: func(run runtime.RunID) bool { return run == kept }})
	spec := b.probe(t, "hold")
	kept = spec.ID()
	if _, err := b.List(t.Context(), b.owner); err != nil {
		t.Fatal(err)
	}
	b.up(t, spec)
	late := docker(t, "create", "--label", "dev.locald.instance="+string(b.owner), "--label", "dev.locald.run="+string(kept)+"9", probeImage, "hold")
	foreign := docker(t, "run", "-d", "--label", "dev.locald.instance=somebody-elses", "--label", "dev.locald.run=x/y#1", probeImage, "hold")
	defer docker(t, "rm", "-f", foreign)
	until(t, "the late one is removed", func() bool { return docker(t, "ps", "-aq", "--no-trunc", "--filter", "id="+late) == "" })
	if docker(t, "ps", "-q", "--no-trunc", "--filter", "id="+foreign) == "" {
		t.Error("a container of somebody else's was removed")
	}
	if refs, err := b.List(t.Context(), b.owner); err != nil || len(refs) != 1 {
		t.Errorf("List = %v, %v; want the one that is kept", refs, err)
	}
}
