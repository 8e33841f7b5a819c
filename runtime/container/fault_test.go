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

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
)

func TestACreateOfWhichTheAnswerIsLostIsNotMadeTwice(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"/containers/create", "/start", "/networks/create"} {
		p := newProxy(t)
		b := newBench(t, container.Options{Getenv: p.env})
		f := p.on("POST", step, 1, swallow)
		spec := b.probe(t, "out=up", "trap=3", "hold")
		instance := b.up(t, spec)
		<-f.hit
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
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.env})
	if err := b.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.on("POST", "/containers/create", 1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		forward.ServeHTTP(httptest.NewRecorder(), r)
		go p.vanish() // waits for this request
		drop(w, r, forward)
	})
	if _, err := b.Start(t.Context(), b.probe(t, "hold")); !errors.Is(err, runtime.ErrUnavailable) {
		t.Fatalf("Start = %v; want ErrUnavailable", err)
	}
	mine := "label=dev.locald.instance=" + string(b.owner)
	if docker(t, "ps", "-aq", "--filter", mine) == "" {
		t.Fatal("the engine has no container: the test did not set up what it tests")
	}
	p.mend()
	p.listen()
	until(t, "container and network are removed", func() bool {
		return docker(t, "ps", "-aq", "--filter", mine) == "" && docker(t, "network", "ls", "-q", "--filter", mine) == ""
	})
}

func TestAnAbsenceOfTheEngineConcludesNothingAndLosesNothing(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	away := make(chan error, 10)
	b := newBench(t, container.Options{Getenv: p.env, Away: func(err error) { away <- err }})
	lives := b.probe(t, "lines=50", "out=ready", "sleep=4s", "lines=50", "trap=3", "out=more", "hold")
	living := b.up(t, lives)
	diesSpec := b.probe(t, "out=up", "hold")
	diesSpec.Service = "other"
	dying := b.up(t, diesSpec)
	saying(t, lives, "ready")
	saying(t, diesSpec, "up")

	p.vanish()
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

	p.listen()
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
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.env})
	spec := b.probe(t, "out=up", "hold")
	instance := b.up(t, spec)
	saying(t, spec, "up")
	// The next subscription is held up until the container has ended, and the
	// engine is asked to replay nothing.
	ended := make(chan struct{})
	p.on("GET", "/events", 1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		select {
		case <-ended:
		case <-r.Context().Done():
		}
		query := r.URL.Query()
		query.Del("since")
		r.URL.RawQuery = query.Encode()
		forward.ServeHTTP(w, r)
	})
	p.cut()
	docker(t, "kill", "-s", "KILL", instance.Info().ContainerID)
	docker(t, "wait", instance.Info().ContainerID)
	close(ended)
	if exit := wait(t, instance); exit.Code != 137 {
		t.Errorf("Wait = %+v; want 137", exit)
	}
}

func TestAnEngineThatHangsInTheMiddleIsGivenUp(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.env})
	spec := b.probe(t, "out=up", "hold")
	instance := b.up(t, spec)
	saying(t, spec, "up")
	p.on("", "", -1, hang)
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
	p.mend()
	if err := instance.Stop(t.Context(), 0); err != nil {
		t.Errorf("Stop = %v when the engine answers again", err)
	}
}

func TestAnEngineThatHangsDuringAStartLeavesNothingForLong(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.env})
	p.on("POST", "/start", 1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		p.on("", "", -1, hang)
		hang(w, r, forward)
	})
	if _, err := b.Start(t.Context(), b.probe(t, "hold")); !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("Start = %v; want ErrUnavailable", err)
	}
	p.mend()
	p.cut() // as an engine that is started again does
	mine := "label=dev.locald.instance=" + string(b.owner)
	until(t, "container and network are removed", func() bool {
		return docker(t, "ps", "-aq", "--filter", mine) == "" && docker(t, "network", "ls", "-q", "--filter", mine) == ""
	})
}

func TestACallMayTakeLongWhileTheEngineLives(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.env})
	p.on("POST", "/start", 1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
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
