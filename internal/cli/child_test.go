package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/locald/locald/ipc"
)

// targets answers run with a directory, a PATH of its own and a variable.
func (b *bench) targets() {
	b.t.Helper()
	zero := 0
	b.serve(ipc.Table{ipc.CallRun: ipc.Stream(func(_ context.Context, args ipc.RunArgs, send func(ipc.Event) error) error {
		if args.Service == "nix" {
			return &ipc.Error{Code: ipc.CodeUnknownService, Message: "no service nix"}
		}
		if args.Service == "away" {
			return &ipc.Error{Code: ipc.CodeEngineUnavailable, Message: "docker does not answer"}
		}
		return send(ipc.Event{Event: ipc.EventDone, Exit: &zero, Target: &ipc.Target{
			Dir: b.dir, Env: []string{"PATH=tools:/usr/bin:/bin", "MODE=" + args.Mode},
		}})
	})})
}

func TestRunEndsAsItsCommandDoes(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.targets()
	if err := os.Mkdir(filepath.Join(b.dir, "tools"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.write("tools/mine", "#!/bin/sh\necho mine\n")
	b.write("tools/broken", "#!/nix/interpreter\n")
	b.write("tools/closed", "#!/bin/sh\n")
	for _, name := range []string{"mine", "broken"} {
		if err := os.Chmod(filepath.Join(b.dir, "tools", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{[]string{"run", "web", "true"}, 0, "", ""},
		{[]string{"run", "web", "--", "sh", "-c", "exit 7"}, 7, "", ""},
		{[]string{"run", "web", "sh", "-c", "kill -9 $$"}, 137, "", ""},
		{[]string{"run", "web", "pwd"}, 0, b.dir + "\n", ""},
		{[]string{"run", "web", "sh", "-c", "echo $MODE; echo e >&2"}, 0, "run\n", "e\n"},
		{[]string{"exec", "web", "sh", "-c", "echo $MODE"}, 0, "exec\n", ""},
		{[]string{"exec", "-T", "web", "sh", "-c", "cat; test -t 0 || exit 4"}, 4, "piped", ""},
		{[]string{"run", "web", "sh", "-c", "cat"}, 0, "piped", ""},
		{[]string{"run", "web", "mine"}, 0, "mine\n", ""},
		{[]string{"run", "web", "tools/mine"}, 0, "mine\n", ""},
		{[]string{"run", "web", "nix-command"}, 127, "", "nix-command: executable file not found"},
		{[]string{"run", "web", "./nix"}, 127, "", "./nix: "},
		{[]string{"run", "web", "tools/closed"}, 126, "", "permission denied"},
		{[]string{"run", "web", "/"}, 126, "", "is a directory"},
		{[]string{"run", "web", "broken"}, 126, "", "broken: the interpreter"},
		{[]string{"run", "nix", "true"}, 2, "", "no service nix"},
		{[]string{"exec", "away", "true"}, 125, "", "docker does not answer"},
		{[]string{"run", "away", "true"}, 1, "", "docker does not answer"},
	} {
		b.stdin = strings.NewReader("piped")
		got := b.run(c.args...)
		if got.status != c.status || got.stdout != c.stdout || !strings.Contains(got.stderr, c.stderr) || (c.stderr == "" && got.stderr != "") {
			t.Errorf("locald %s: got %+v, want %+v", strings.Join(c.args, " "), got, c)
		}
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.targets()
	out, errs, ended := b.background("run", "web", "sh", "-c", `trap 'echo got term; exit 9' TERM; echo ready; while :; do sleep 0.05; done`)
	out.await(t, "ready")
	b.signals <- syscall.SIGTERM
	if got := <-ended; got != 9 || !strings.Contains(out.String(), "got term") {
		t.Errorf("exit %d\n%s%s", got, out, errs)
	}
}
