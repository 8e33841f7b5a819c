package pid1

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFurtherCommands(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "echo ready; exec sleep 1000")
		b.spec.Workdir = "/srv"
		b.start()
		b.ready()
		for _, test := range []struct {
			name string
			Command
			out  string
			code int
		}{
			{"its status", Command{Args: []string{"sh", "-c", "exit 3"}}, "", 3},
			{"its signal", Command{Args: []string{"sh", "-c", "kill -KILL $$"}}, "", 137},
			{"its environment", Command{Args: []string{"sh", "-c", "echo $GREETING $HOME $MORE; pwd"}, Env: []string{"GREETING=bye", "MORE=\xff"}}, "bye / \xff\n/srv\n", 0},
			{"its directory", Command{Args: []string{"pwd"}, Workdir: "/etc"}, "/etc\n", 0},
			{"its input", Command{Args: []string{"cat"}}, "", 0},
			{"what is kept from it", Command{Args: []string{"grep", "-E", "^(CapBnd|Seccomp):", "/proc/self/status"}}, "CapBnd:\t00000000a80425fb\nSeccomp:\t2\n", 0},
			{"its namespaces", Command{Args: []string{"hostname"}}, "web\n", 0},
		} {
			if out, code := b.exec(test.Command); out != test.out || code != test.code {
				t.Errorf("%s: %q and %d, want %q and %d", test.name, out, code, test.out, test.code)
			}
		}
		for _, test := range []struct {
			Command
			kind Kind
			says string
		}{
			{Command{Args: []string{"nope"}}, NotFound, "command nope: not found in the container's PATH"},
			{Command{Args: []string{"/etc"}}, NotExecutable, "command /etc: is a directory"},
			{Command{Args: []string{"true"}, Workdir: "/nope"}, WorkdirFailed, "working directory /nope: is not a directory of the container"},
			{Command{}, Invalid, "command: is empty"},
		} {
			if _, err := Exec(t.Context(), b.dir, test.Command); !IsKind(err, test.kind) || err.Error() != test.says {
				t.Errorf("%q: %v", test.Args, err)
			}
		}
	})
}

func TestACommandOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	b := who{rootful: true}.newBox(t, "exec sleep 1000").start()
	b.ready()
	out, code := b.exec(Command{Args: []string{"sh", "-c", "id -u; id -G; echo $HOME; echo again >/dev/stderr"}, User: &User{UID: 5, GID: 6, Groups: []uint32{7}, Home: "/srv"}})
	if want := "5\n6 7\n/srv\nagain\n"; out != want || code != 0 {
		t.Errorf("%q and %d", out, code)
	}
}

// terminal reads a terminal to its end, which is an error of reading.
func terminal(f *os.File) string {
	text, _ := io.ReadAll(f)
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

func TestACommandWithATerminal(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "exec sleep 1000").start()
		b.ready()
		r, err := Exec(t.Context(), b.dir, Command{Args: []string{"sh", "-c", "tty; stty size; stty -echo; echo asks; read x; stty size; echo $x >/dev/tty; exit 4"}, Terminal: &Size{Rows: 31, Columns: 99}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Terminal.Close()
		lines := bufio.NewReader(r.Terminal)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(line, "asks") {
				break
			}
		}
		if err := unix.IoctlSetWinsize(int(r.Terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 10, Col: 20}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(r.Terminal, "typed")
		if got := terminal(r.Terminal); got != "10 20\ntyped\n" {
			t.Errorf("%q", got)
		}
		if code, err := r.Wait(); code != 4 || err != nil {
			t.Errorf("%d, %v", code, err)
		}
	})
}

// A command goes with whoever wanted it, and what it started in its group.
func TestACommandEndsWithItsCaller(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "exec sleep 1000").start()
		b.ready()
		near, far, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		ctx, cancel := context.WithCancel(t.Context())
		_, err = Exec(ctx, b.dir, Command{Args: []string{"sh", "-c", `trap "" TERM HUP; sleep 1000 & echo ready; wait; sleep 1000`}, Stdout: far})
		far.Close()
		if err != nil {
			t.Fatal(err)
		}
		out := bufio.NewReader(near)
		if line, err := out.ReadString('\n'); line != "ready\n" {
			t.Fatal(line, err)
		}
		cancel()
		if rest, err := io.ReadAll(out); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

func TestASignalForACommand(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "exec sleep 1000").start()
		b.ready()
		r, err := Exec(t.Context(), b.dir, Command{Args: []string{"sleep", "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Signal(unix.SIGINT); err != nil {
			t.Fatal(err)
		}
		if code, err := r.Wait(); code != 130 || err != nil {
			t.Errorf("%d, %v", code, err)
		}
	})
}

func TestACommandInAContainerThatEnds(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "read x; exit 5").start()
		b.ready()
		r, err := Exec(t.Context(), b.dir, Command{Args: []string{"sleep", "1000"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, code := b.output(); code != 5 {
			t.Error(code)
		}
		if _, err := r.Wait(); !IsKind(err, Gone) {
			t.Error(err)
		}
		if _, err := Exec(t.Context(), b.dir, Command{Args: []string{"true"}}); !IsKind(err, Gone) {
			t.Error(err)
		}
	})
}

func TestOrphansAreReaped(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "exec sleep 1000").start()
		b.ready()
		for range 20 {
			if out, code := b.exec(Command{Args: []string{"sh", "-c", "(true &) ; exit 0"}}); out != "" || code != 0 {
				t.Fatal(out, code)
			}
		}
		if out, code := b.exec(Command{Args: []string{"sh", "-c", "while cat /proc/[0-9]*/stat 2>/dev/null | grep ') Z '; do :; done >/dev/null"}}); code != 0 {
			t.Error(out, code)
		}
	})
}
