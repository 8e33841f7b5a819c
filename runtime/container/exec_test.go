package container_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
)

func TestExecTTY(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	spec := b.probe(t)
	spec.Image.Name, spec.Command = shellImage, []string{"sleep", "60"}
	spec.Env = []string{"OF=the container"}
	id := b.up(t, spec).Info().ContainerID
	for _, test := range []struct {
		name           string
		argv           []string
		tty            bool
		stdin          string
		code           int
		stdout, stderr string
	}{
		{"exit code and streams", []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, false, "", 3, "out\n", "err\n"},
		{"stdin ends", []string{"cat"}, false, "typed", 0, "typed", ""},
		{"environment and directory", []string{"sh", "-c", `echo "$OF, $ADDED, $(pwd)"`}, false, "", 0, "the container, mine, /tmp\n", ""},
		{"killed", []string{"sh", "-c", "kill -TERM $$"}, false, "", 143, "", ""},
		{"a terminal", []string{"sh", "-c", "test -t 0 && test -t 1 && echo yes"}, true, "", 0, "yes\r\n", ""},
		{"short output that begins like a complaint", []string{"printf", "OCI"}, false, "", 0, "OCI", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdin io.Reader
			if test.stdin != "" {
				stdin = strings.NewReader(test.stdin)
			}
			var stdout, stderr bytes.Buffer
			code, err := container.ExecTTY(t.Context(), b.Host(), id, test.argv, []string{"ADDED=mine"}, "/tmp", test.tty, stdin, &stdout, &stderr, nil)
			if err != nil || code != test.code || stdout.String() != test.stdout || stderr.String() != test.stderr {
				t.Errorf("ExecTTY = %d, %v, %q, %q; want %d, %q, %q", code, err, stdout.String(), stderr.String(), test.code, test.stdout, test.stderr)
			}
		})
	}
}

func TestExecTTYFollowsTheSizeOfTheTerminal(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	spec := b.probe(t)
	spec.Image.Name, spec.Command = shellImage, []string{"sleep", "60"}
	id := b.up(t, spec).Info().ContainerID
	sizes := make(chan [2]uint)
	in, typing := io.Pipe()
	defer in.Close()
	seen, out := io.Pipe()
	over := make(chan error, 1)
	go func() {
		// The command waits for a line, so that the size is set by then.
		code, err := container.ExecTTY(t.Context(), b.Host(), id, []string{"sh", "-c", "trap 'echo resized' WINCH; echo ready; while ! read line; do :; done; exit 5"},
			nil, "", true, in, out, out, sizes)
		if err == nil && code != 5 {
			err = errors.New("exited with another code than 5")
		}
		_ = out.Close()
		over <- err
	}()
	expect := func(word string) {
		t.Helper()
		var got strings.Builder
		for b := make([]byte, 1); !strings.Contains(got.String(), word); {
			if _, err := seen.Read(b); err != nil {
				t.Fatalf("output %q ended before %q: %v", got.String(), word, err)
			}
			got.Write(b)
		}
	}
	expect("ready")
	sizes <- [2]uint{33, 77}
	expect("resized")
	go func() { _, _ = io.WriteString(typing, "go\n") }()
	_, _ = io.Copy(io.Discard, seen)
	if err := <-over; err != nil {
		t.Error(err)
	}
}

func TestExecTTYSaysWhyACommandCannotRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	spec := b.probe(t)
	spec.Image.Name, spec.Command = shellImage, []string{"sleep", "60"}
	instance := b.up(t, spec)
	id := instance.Info().ContainerID
	run := func(container_, program string) (int, string, error) {
		var stdout, stderr bytes.Buffer
		code, err := container.ExecTTY(t.Context(), b.Host(), container_, []string{program}, nil, "", false, nil, &stdout, &stderr, nil)
		return code, stdout.String() + stderr.String(), err
	}
	for program, want := range map[string]int{"no-such-program": 127, "/no/such/program": 127, "/etc/passwd": 126, "/etc": 126} {
		code, out, err := run(id, program)
		fault := new(runtime.Fault)
		if code != want || !errors.As(err, &fault) || fault.Code != "command_missing" || !strings.Contains(err.Error(), program) || out != "" {
			t.Errorf("%s: %d, %v, output %q; want %d and command_missing", program, code, err, out, want)
		}
	}
	if code, _, err := run("no-such-container", "sh"); code != 125 || !errors.Is(err, runtime.ErrGone) {
		t.Errorf("no container: %d, %v; want 125 and ErrGone", code, err)
	}
	if err := instance.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if code, _, err := run(id, "sh"); code != 125 || !errors.Is(err, runtime.ErrGone) {
		t.Errorf("an ended container: %d, %v; want 125 and ErrGone", code, err)
	}
	if code, err := container.ExecTTY(t.Context(), "unix:///no/such.sock", id, []string{"sh"}, nil, "", false, nil, io.Discard, io.Discard, nil); code != 125 || !errors.Is(err, runtime.ErrUnavailable) {
		t.Errorf("no engine: %d, %v; want 125 and ErrUnavailable", code, err)
	}
}

func TestExecKeepsTheBeginningOfLongOutput(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	instance := b.up(t, b.probe(t, "hold"))
	exit, out, err := instance.(runtime.Execer).Exec(t.Context(), []string{"/probe", "lines=20000", "exit=4"})
	if err != nil || exit.Code != 4 || len(out) != 64<<10 || !strings.Contains(string(out), "out 0\n") {
		t.Errorf("Exec = %+v, %d bytes, %v; want 4 and the first 64 KiB", exit, len(out), err)
	}
}
