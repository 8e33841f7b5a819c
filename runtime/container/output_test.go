package container_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locald/locald/runtime/container"
)

// TestOutputGoesOnWhenItsReaderWasReplaced: whoever stores the lines was
// killed, and there is another.
func TestOutputGoesOnWhenItsReaderWasReplaced(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	noted := make(chan string, 8)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	b := newBench(t, container.Options{Note: notes(noted), Streams: func(string, int) (stdout, stderr *os.File, err error) {
		nobody, out, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		nobody.Close()
		errs, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if opened.Add(1) == 1 {
			return out, errs, err
		}
		out.Close()
		return write, errs, err
	}})
	spec := b.probe(t)
	spec.Image.Name, spec.Command = shellImage, []string{"sh", "-c", "while :; do echo tick; sleep 0.1; done"}
	b.up(t, spec)
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil || line != "tick\n" {
		t.Errorf("got %q, %v", line, err)
	}
	if n := opened.Load(); n != 2 {
		t.Errorf("opened %d times, want 2", n)
	}
	if text := <-noted; !strings.Contains(text, "may be missing") {
		t.Errorf("noted %q", text)
	}
}

func notes(to chan<- string) func(string, int, string) {
	return func(_ string, run int, text string) { to <- fmt.Sprintf("%d %s", run, text) }
}

// TestOutputThatBreaksOffIsWhole: the engine's connections break again and again
// while the container writes.
func TestOutputThatBreaksOffIsWhole(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P11 F42")
	p := newProxy(t)
	noted := make(chan string, 8)
	b := newBench(t, container.Options{Getenv: p.Env, Note: notes(noted)})
	spec := b.probe(t)
	const script = `i=0; while [ $i -lt 3000 ]; do printf 'line %d \377 ' $i; echo same; echo error >&2; i=$((i+1)); done; printf 'no end'; echo over >&2; sleep 60`
	spec.Image.Name, spec.Command = shellImage, []string{"sh", "-c", script}
	instance := b.up(t, spec)
	for i := 100; i < 3000; i += 400 {
		saying(t, spec, fmt.Sprintf("line %d ", i))
		p.Cut()
	}
	saying(t, spec, "over")
	if err := instance.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	wait(t, instance)
	// The engine's copy has other bytes where it is no UTF-8.
	got := strings.Split(strings.NewReplacer("\xff", "?", "\ufffd", "?").Replace(read(t, spec.Log, "stdout")), "\n")
	for i, line := range got {
		want := fmt.Sprintf("line %d ? same", i)
		if i == 3000 {
			want = "no end"
		}
		if line != want {
			t.Fatalf("line %d of %d is %q; want %q", i, len(got), line, want)
		}
	}
	if errs := read(t, spec.Log, "stderr"); errs != strings.Repeat("error\n", 3000)+"over\n" {
		t.Errorf("stderr has %d lines", strings.Count(errs, "\n"))
	}
	select {
	case text := <-noted:
		t.Errorf("noted %q", text)
	default:
	}
}

// TestOutputThatTheEngineMayHaveDroppedIsSaidTo: it keeps only so much.
func TestOutputThatTheEngineMayHaveDroppedIsSaidTo(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	noted := make(chan string, 8)
	b := newBench(t, container.Options{Getenv: p.Env, Note: notes(noted)})
	// It goes on, for Podman says nothing of its copy before there is more.
	spec := b.probe(t, "lines=200000", "out=much", "stamps=1000,50ms")
	b.up(t, spec)
	saying(t, spec, "much")
	p.Cut()
	select {
	case text := <-noted:
		if !strings.HasPrefix(text, "1 ") || !strings.Contains(text, "may be missing") {
			t.Errorf("noted %q", text)
		}
	case <-time.After(limit):
		t.Error("nothing is said")
	}
}
