package container_test

import (
	"bufio"
	"os"
	"sync/atomic"
	"testing"

	"github.com/locald/locald/runtime/container"
)

// TestOutputGoesOnWhenItsReaderWasReplaced: whoever stores the lines was
// killed, and there is another.
func TestOutputGoesOnWhenItsReaderWasReplaced(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	b := newBench(t, container.Options{Streams: func(string, int) (stdout, stderr *os.File, err error) {
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
}
