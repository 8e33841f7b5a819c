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

// TestOutputThatBrokeOffIsSaidTo: the engine's connections break while the
// container lives.
func TestOutputThatBrokeOffIsSaidTo(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	noted := make(chan string, 8)
	b := newBench(t, container.Options{Getenv: p.Env, Note: notes(noted)})
	b.up(t, b.probe(t, "hold"))
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
