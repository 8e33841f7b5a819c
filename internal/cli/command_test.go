package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/ipc"
)

// shopStatus has a service in every state that prints differently, and names
// and reasons that try to command the terminal.
func shopStatus() ipc.Status {
	started := fixedNow.Add(-3 * 60 * 1e9).Format("2006-01-02T15:04:05Z")
	return ipc.Status{
		Version: 1, Project: ipc.ProjectName{Name: "shop", Dir: "/home/ana/shop"}, Daemon: ipc.DaemonName{PID: 4711, Version: "0.1.0"},
		Services: []ipc.Service{
			{
				Name: "db", Type: "postgres", Desired: "up", State: "running", Health: "healthy", Port: 40123,
				URL: "postgresql://shop:***@127.0.0.1:40123/shop", StartedAt: started, ReadyAt: started, Run: 1,
			},
			{Name: "migrate", Type: "task", Desired: "up", State: "completed", Health: "none", ExitCode: ptr(0), Run: 2},
			{
				Name: "web", Type: "exec", Desired: "up", State: "running", Health: "unhealthy", Port: 3000, Ports: map[string]int{"metrics": 9100, "admin": 9000},
				Restarts: 2, StartedAt: started, Run: 3,
			},
			{Name: "mail", Type: "worker", Desired: "down", State: "stopped", Health: "none"},
			{Name: "bad", Type: "worker", Desired: "up", State: "failed", Health: "none", Reason: "exited with 1 \x1b]0;owned\x07\x1b[2J\nagain", Code: ipc.CodeExited},
		},
	}
}

// shopLeftovers has a thing of every kind and state, one with a name that tries
// to command the terminal.
func shopLeftovers() ipc.Leftovers {
	of := func(t ipc.Thing) ipc.Thing {
		t.Project, t.Dir = "shop", "/home/ana/shop"
		return t
	}
	return ipc.Leftovers{Things: []ipc.Thing{
		of(ipc.Thing{Kind: "process", State: ipc.ThingLeft, Name: "sleep \x1b]0;owned\x07 1000", PID: 4712, Service: "web", Run: 3, Remedy: "locald -C /home/ana/shop down"}),
		of(ipc.Thing{Kind: "container", State: ipc.ThingLeft, Name: "locald-shop-cache-1", ID: "9f1c2d3e4f50", Engine: "docker", Service: "cache", Detail: "exited", Remedy: "docker rm -f locald-shop-cache-1"}),
		of(ipc.Thing{Kind: "engine", State: ipc.ThingUnknown, Name: "unix:///var/run/docker.sock", Detail: "docker hangs", Remedy: "sudo systemctl restart docker"}),
		{Kind: "network", State: ipc.ThingForeign, Name: "locald-other", ID: "aa", Remedy: "docker network rm locald-other"},
		of(ipc.Thing{Kind: "file", State: ipc.ThingKept, Name: "/home/ana/.local/share/locald/projects/shop/data/db", Bytes: 47 << 20, Service: "db", Detail: "data", Remedy: "locald -C /home/ana/shop down --volumes db"}),
		of(ipc.Thing{Kind: "port", State: ipc.ThingUsed, Name: "127.0.0.1:3000", PID: 4713, Service: "web", Detail: "held by process 4713"}),
	}}
}

// someImages are one of each engine, one that nobody uses, and one whose name
// tries to command the terminal.
func someImages() ipc.Images {
	used := func(ago time.Duration) string { return fixedNow.Add(-ago).Format(time.RFC3339) }
	return ipc.Images{
		Images: []ipc.Image{
			{
				Name: "postgres:15", Digest: "sha256:0123456789abcdef", Size: 98_400_000, Engine: "builtin", Held: true, UsedAt: used(3 * time.Minute),
				UsedBy: []ipc.ImageUse{{Project: "shop", Dir: "/home/ana/shop", Service: "db"}, {Project: "shop (shop-2)", Dir: "/home/ana/shop-2", Service: "db"}},
			},
			{Name: "127.0.0.1:5000/\x1b]0;owned\x07old:1", Digest: "sha256:fedcba9876543210", Size: 1234, Engine: "builtin", UsedAt: used(72 * time.Hour)},
			{Name: "redis:7", Digest: "sha256:00112233445566", Size: 40_000_000, Engine: "docker", UsedAt: used(2 * time.Hour), UsedBy: []ipc.ImageUse{{Project: "shop", Dir: "/home/ana/shop", Service: "cache"}}},
		},
		Notes: []string{"the images of docker are its own: docker image prune"},
	}
}

// fakeTable answers every call in a way that shows how it is printed.
func fakeTable() ipc.Table {
	status := shopStatus()
	line := func(seq uint64, service, stream, text string) ipc.LogLine {
		return ipc.LogLine{Seq: seq, Time: at(float64(seq)), Service: service, Run: 1, Stream: stream, Line: text}
	}
	down := []ipc.Event{
		{Time: at(1), Service: "web", Event: ipc.EventNote, Message: "stop: depends on db"},
		{Time: at(1), Service: "web", Event: ipc.EventStopped},
		{Time: at(2), Service: "db", Event: ipc.EventStopped},
		finish(0, &status),
	}
	return ipc.Table{
		ipc.CallUp: ipc.Stream(func(_ context.Context, args ipc.UpArgs, send func(ipc.Event) error) error {
			if len(args.Services) > 0 && args.Services[0] == "wbe" {
				return &ipc.Error{Code: ipc.CodeUnknownService, Message: `no service "wbe"`, Hint: "locald up web", Service: "wbe"}
			}
			events := []ipc.Event{
				{Time: at(0), Service: "web", Event: ipc.EventPending, Message: "waits for db"},
				{Time: at(0), Service: "db", Event: ipc.EventPreparing},
				{Time: at(0.5), Service: "db", Event: ipc.EventProgress, Message: "pulling postgres:16", Current: 1 << 20, Total: 50 << 20},
				{Time: at(0.6), Service: "db", Event: ipc.EventProgress, Message: "pulling postgres:16", Current: 2 << 20, Total: 50 << 20},
				{Time: at(1), Service: "db", Event: ipc.EventHealthy, Message: "accepts connections"},
				{Time: at(1), Event: ipc.EventNote, Message: "DATABASE_URL hides the one of .env"},
			}
			last := finish(0, &status)
			if len(args.Services) > 0 && args.Services[0] == "bad" {
				events = append(events, ipc.Event{
					Time: at(2), Service: "bad", Event: ipc.EventFailed, Message: "exited with 1", Code: ipc.CodeExited, Hint: `type = "task"`,
					Lines: []ipc.LogLine{line(1, "bad", "stdout", "listening\x1b[31m"), line(2, "bad", "stderr", "bind: \x1b[2Jaddress in use")},
				})
				last = finish(1, &status)
				last.Message = "bad: exited with 1"
			}
			if len(args.Services) > 0 && args.Services[0] == "slow" {
				last = finish(124, nil)
				last.Message, last.Hint = "slow is not ready after 1s: GET /healthz answers 503", "locald logs slow"
			}
			for _, e := range append(events, last) {
				if err := send(e); err != nil {
					return err
				}
			}
			return nil
		}),
		ipc.CallDown: ipc.Stream(func(_ context.Context, args ipc.DownArgs, send func(ipc.Event) error) error {
			last := down[len(down)-1]
			if args.Verify {
				last = last.Verified(shopLeftovers())
			}
			for _, e := range append(slices.Clone(down[:len(down)-1]), last) {
				if err := send(e); err != nil {
					return err
				}
			}
			return nil
		}),
		ipc.CallLeft: replies[ipc.LeftArgs](shopLeftovers()),
		ipc.CallStop: sends[ipc.ServiceArgs](down...),
		ipc.CallPlan: replies[ipc.UpArgs](ipc.Plan{Changes: []ipc.Change{
			{Service: "web", Op: "restart", Cause: "command changed"}, {Service: "db", Op: "keep", Cause: "nothing changed"},
		}}),
		ipc.CallStart:   sends[ipc.ServiceArgs](ipc.Event{Time: at(0), Service: "web", Event: ipc.EventHealthy}, finish(0, &status)),
		ipc.CallRestart: sends[ipc.ServiceArgs](ipc.Event{Time: at(0), Service: "web", Event: ipc.EventHealthy}, finish(0, &status)),
		ipc.CallWait:    sends[ipc.WaitArgs](ipc.Event{Time: at(0), Service: "web", Event: ipc.EventHealthy}, finish(0, nil)),
		ipc.CallStatus: ipc.Answer(func(_ context.Context, args ipc.StatusArgs) (ipc.Status, error) {
			s := status
			if len(args.Services) == 0 {
				return s, nil
			}
			s.Services = nil
			for _, svc := range status.Services {
				if svc.Name == args.Services[0] {
					s.Services = append(s.Services, svc)
				}
			}
			if s.Services == nil {
				return s, &ipc.Error{Code: ipc.CodeUnknownService, Message: "no service " + args.Services[0]}
			}
			return s, nil
		}),
		ipc.CallWatch: ipc.Stream(func(_ context.Context, _ ipc.StatusArgs, send func(ipc.Status) error) error {
			return errors.Join(send(status), send(status))
		}),
		ipc.CallList: replies[ipc.NoArgs](ipc.Projects{Projects: []ipc.ProjectSummary{
			{ProjectName: ipc.ProjectName{Name: "shop", Dir: "/home/ana/shop"}, Wanted: 4, Ready: 2, Failed: 1, UsedAt: fixedNow.Add(-1e9 * 3600)},
			{ProjectName: ipc.ProjectName{Name: "shop", Dir: "/home/ana/shop-2", Label: "shop (shop-2)"}, Missing: true, UsedAt: fixedNow.Add(-1e9 * 3600 * 80)},
		}}),
		ipc.CallHistory: replies[ipc.HistoryArgs](ipc.History{Runs: []ipc.Run{
			{Service: "web", Run: 2, Start: "2026-11-23T10:00:05Z", Ready: "2026-11-23T10:00:06.25Z"},
			{Service: "web", Run: 1, Start: "2026-11-23T10:00:00Z", End: "2026-11-23T10:00:04Z", ExitCode: ptr(1), Reason: "exited with 1"},
		}}),
		ipc.CallEnv: ipc.Answer(func(_ context.Context, args ipc.EnvArgs) (ipc.Env, error) {
			secret := "p'w\n$x"
			if !args.Reveal {
				secret = "***"
			}
			return ipc.Env{Vars: []ipc.Var{
				{Name: "DB_PASSWORD", Value: secret, Origin: "injected (db)", Secret: true},
				{Name: "LOG", Value: "debug", Origin: "locald.toml:12"},
				{Name: "MOTD", Value: `it is "fine"`, Origin: ".env"},
			}}, nil
		}),
		ipc.CallLogs: ipc.Stream(func(_ context.Context, _ ipc.LogsArgs, send func(ipc.LogLine) error) error {
			cut := line(4, "web", "stdout", "no newline")
			cut.Partial = true
			latin := line(3, "web", "stdout", "caf\uFFFD")
			latin.B64 = []byte("caf\xe9")
			gap := line(5, "migrate", "gap", "")
			gap.MissingBytes = 18244
			return errors.Join(
				send(line(1, "db", "stderr", "ready to accept connections")), send(line(2, "web", "stdout", "\x1b[32mgreen\x1b[0m \x1b]52;c;ZXZpbA==\x07")),
				send(latin), send(gap), send(line(6, "web", "event", "exited with 1; restarting in 0.5s")), send(cut),
			)
		}),
		ipc.CallImages: replies[ipc.NoArgs](someImages()),
		ipc.CallPrune: ipc.Answer(func(_ context.Context, args ipc.PruneArgs) (ipc.Pruned, error) {
			if !args.All {
				return ipc.Pruned{Removed: []ipc.Image{}}, nil
			}
			return ipc.Pruned{Removed: someImages().Images[1:2], Freed: 1234}, nil
		}),
		ipc.CallDoctor: replies[ipc.NoArgs](ipc.Doctor{Checks: []ipc.Check{
			{Area: "engine", Name: "docker", OK: true, Detail: "29.0 at unix:///var/run/docker.sock, used because DOCKER_HOST names it"},
			{Area: "postgres", Name: "binaries", Detail: "none found", Remedy: "apt install postgresql"},
		}}),
	}
}

func TestWhatCommandsPrint(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.serve(fakeTable())
	var text strings.Builder
	for _, line := range []string{
		"up", "up --json bad", "up bad", "up slow", "up wbe", "up wbe --json", "up -d", "up -d --wait", "up --plan", "up --plan --json",
		"down db", "down --json", "stop web", "start web", "restart web", "stop", "wait web", "wait --timeout x",
		"status", "status web --json", "status --check", "status db", "status mail", "status db --check", "status nix", "status --watch", "status --all", "status --history", "ps db",
		"logs", "logs -t --no-prefix", "logs --json", "logs --raw", "logs --raw --json", "logs --since yesterday", "logs --grep (", "logs -n -3", "logs --stream stdin", "logs --run x",
		"env web", "env web --format shell", "env --json", "env web --explain", "env --format yaml",
		"port web", "port web metrics", "port web nix", "port mail", "port",
		"doctor", "doctor --json", "doctor --leftovers", "doctor --leftovers --json", "down --verify", "down --verify --json", "images", "images --json", "images prune", "images prune --all", "images prune --all --json", "images prun", "server status", "server status --json", "server", "version",
		"frobnicate", "--nix", "server strt", "completion tcsh", "up --color sometimes", "run web", "exec",
	} {
		got := b.run(strings.Fields(line)...)
		fmt.Fprintf(&text, "$ locald %s\n%s", line, strings.ReplaceAll(got.stdout, b.dir, "/home/ana/shop"))
		if got.stderr != "" {
			fmt.Fprintf(&text, "-- stderr\n%s", strings.ReplaceAll(got.stderr, b.dir, "/home/ana/shop"))
		}
		fmt.Fprintf(&text, "-- exit %d\n\n", got.status)
	}
	golden(t, "commands.golden", text.String())
}

func TestWhatATerminalGets(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.columns = 60
	b.serve(fakeTable())
	var text strings.Builder
	for _, line := range []string{"status", "status --color never", "logs", "env web", "env web --reveal", "status --watch", "doctor"} {
		got := b.run(strings.Fields(line)...)
		fmt.Fprintf(&text, "$ locald %s\n%q\n-- stderr\n%q\n-- exit %d\n\n", line, got.stdout, got.stderr, got.status)
	}
	golden(t, "terminal.golden", strings.ReplaceAll(text.String(), `\n`, "\\n\n"))
}

func TestNothingThatIsPrintedCommandsTheTerminal(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.serve(fakeTable())
	for _, line := range []string{"status", "up bad", "logs", "status --watch", "doctor --leftovers", "down --verify", "images", "images prune --all"} {
		got := b.run(strings.Fields(line)...)
		for _, bad := range []string{"\x1b]", "\x1b[2J", "\x07", "\r"} {
			if strings.Contains(got.stdout+got.stderr, bad) {
				t.Errorf("locald %s prints %q:\n%q", line, bad, got.stdout+got.stderr)
			}
		}
	}
}

func TestBrokenConfigurationIsToldWhole(t *testing.T) {
	t.Parallel()
	b := newBench(t, "[services.web]\ncomand = \"x\"\nport = \"y\"\n")
	got := b.run("config", "check")
	if got.status != 2 || !strings.Contains(got.stderr, "locald.toml:2:1: ") || !strings.Contains(got.stderr, "locald.toml:3:8: ") || !strings.Contains(got.stderr, "hint: ") {
		t.Errorf("exit %d\n%s", got.status, got.stderr)
	}
	got = b.run("config", "check", "--json")
	var fault struct{ Error ipc.Error }
	if err := json.Unmarshal([]byte(got.stderr), &fault); err != nil || fault.Error.Code != ipc.CodeConfigInvalid || len(fault.Error.Problems) < 2 || fault.Error.Line == 0 {
		t.Errorf("%v\n%s", err, got.stderr)
	}
	var answer struct {
		Valid    bool
		Problems []ipc.Problem
	}
	if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil || answer.Valid || len(answer.Problems) < 2 {
		t.Errorf("%v\n%s", err, got.stdout)
	}
}

func TestConfigurationIsShownWithoutADaemon(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	if got := b.run("config", "check"); got.status != 0 || !strings.Contains(got.stdout, "shop: no problems in 2 services") {
		t.Errorf("check: %+v", got)
	}
	if got := b.run("config", "show"); got.status != 0 || !strings.Contains(got.stdout, "services.web.command") || !strings.Contains(got.stdout, "# locald.toml:4") {
		t.Errorf("show: %+v", got)
	}
	if got := b.run("config", "schema"); got.status != 0 || !json.Valid([]byte(got.stdout)) {
		t.Errorf("schema: exit %d, %s", got.status, got.stderr)
	}
	if got := b.run("config", "show", "--json"); got.status != 0 || !json.Valid([]byte(got.stdout)) {
		t.Errorf("show --json: %+v", got)
	}
}

func TestWithoutADaemon(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	for line, want := range map[string]struct {
		status         int
		stdout, stderr string
	}{
		"status":          {3, "web    stopped", "nothing is wanted here"},
		"status --json":   {3, `"daemon":{"pid":0`, ""},
		"status nix":      {2, "", "no such service: nix"},
		"stop nix":        {2, "", "no such service: nix"},
		"down wbe":        {2, "", "hint: did you mean web?"},
		"wait nix":        {2, "", "no such service: nix"},
		"down":            {0, "", ""},
		"stop web":        {0, "", ""},
		"down --json":     {0, `"event":"done"`, ""},
		"port web":        {3, "", "web is not up"},
		"wait":            {1, "", "hint: locald up"},
		"server stop":     {0, "not running", ""},
		"server status":   {1, "not running", ""},
		"server logs":     {1, "", "there is no log"},
		"-C /nix/nix up":  {2, "", "/nix/nix"},
		"--file nix up":   {2, "", "nix"},
		"config show nix": {2, "", "one argument too many"},
	} {
		got := b.run(strings.Fields(line)...)
		if got.status != want.status || !strings.Contains(got.stdout, want.stdout) || !strings.Contains(got.stderr, want.stderr) || (want.stderr == "") != (got.stderr == "") {
			t.Errorf("locald %s: got %+v", line, got)
		}
	}
}

func TestASocketVariableAloneIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.environ = append(b.environ, "LOCALD_SANDBOX_ACTIVE=true")
	for _, line := range []string{"up", "status", "server status", "logs", "down"} {
		if got := b.run(strings.Fields(line)...); got.status != 2 || !strings.Contains(got.stderr, "LOCALD_SANDBOX_ACTIVE is not 1") {
			t.Errorf("locald %s: got %+v", line, got)
		}
	}
}

func TestASocketHeldByAFileIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	if err := os.WriteFile(b.socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := b.run("up"); got.status != 125 || !strings.Contains(got.stderr, "is a file, not a socket") {
		t.Errorf("got %+v", got)
	}
}

func TestFlagsComeFromTheEnvironmentToo(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	seen := make(chan ipc.UpArgs, 1)
	b.serve(ipc.Table{
		ipc.CallUp: ipc.Stream(func(_ context.Context, args ipc.UpArgs, send func(ipc.Event) error) error {
			seen <- args
			return send(finish(0, nil))
		}),
		ipc.CallLogs: ipc.Stream(func(_ context.Context, args ipc.LogsArgs, _ func(ipc.LogLine) error) error {
			if args.Run != "recent" { // what logs asks for by itself
				return fmt.Errorf("run is %q", args.Run)
			}
			return nil
		}),
		ipc.CallStatus: replies[ipc.StatusArgs](ipc.Status{}),
	})
	b.environ = append(b.environ, "LOCALD_PROFILES=dev,test", "LOCALD_WAIT_TIMEOUT=90", "LOCALD_NO_DEPS=1", "LOCALD_PULL=never", "LOCALD_RUN=7")
	if got := b.run("up", "--pull", "always"); got.status != 0 {
		t.Fatalf("got %+v", got)
	}
	args := <-seen
	if strings.Join(args.Profiles, " ") != "dev test" || args.WaitTimeout != "1m30s" || !args.NoDeps || args.Pull != "always" {
		t.Errorf("got %+v", args)
	}
	// Services have LOCALD_RUN in their environment; a locald that runs in one
	// does not take it for --run.
	if got := b.run("logs"); got.status != 0 {
		t.Errorf("logs: got %+v", got)
	}
	b.environ = append(b.environ, "LOCALD_PULL=maybe")
	if got := b.run("up"); got.status != 2 || !strings.Contains(got.stderr, "LOCALD_PULL=maybe") {
		t.Errorf("got %+v", got)
	}
}

// mute is a daemon that answers ping and hangs up on everything else.
func (b *bench) mute() {
	b.t.Helper()
	l, err := net.Listen("unix", b.socket)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if line, _ := bufio.NewReader(conn).ReadString('\n'); strings.Contains(line, `"ping"`) {
				fmt.Fprintln(conn, `{"pid":1}`)
			}
			conn.Close()
		}
	}()
}

func TestAnAnswerThatIsCutOffExitsWith125(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.mute()
	for _, line := range []string{"up", "up --json", "down", "status", "logs", "wait", "run web true", "server stop"} {
		got := b.run(strings.Fields(line)...)
		if got.status != 125 || !strings.Contains(got.stderr, "cut off") {
			t.Errorf("locald %s: got %+v", line, got)
		}
	}
}

func TestADaemonOfAnotherProtocolIsNamed(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	b.serve(ipc.Table{ipc.CallStatus: ipc.Answer(func(context.Context, ipc.StatusArgs) (ipc.Status, error) {
		return ipc.Status{}, &ipc.Error{Code: ipc.CodeVersionMismatch, Message: "the daemon speaks protocol 2, this client speaks 1", Hint: "locald server restart"}
	})})
	if got := b.run("status"); got.status != 125 || !strings.Contains(got.stderr, "hint: locald server restart") {
		t.Errorf("got %+v", got)
	}
}

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	var errs buffer
	if status := Main(t.Context(), []string{"version"}, b.io(full, &errs), b.hooks()); status != 1 || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("exit %d, %s", status, errs.String())
	}
}

func TestCompletionKnowsServices(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	if got := b.run("__complete", "logs", ""); !strings.Contains(got.stdout, "web\ndb\n") {
		t.Errorf("got %+v", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := b.run("completion", shell); got.status != 0 || !strings.Contains(got.stdout, "locald") {
			t.Errorf("%s: exit %d, %s", shell, got.status, got.stderr)
		}
	}
}

func TestServerLogsShowsTheEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t, twoServices)
	places, err := (&app{environ: b.environ}).places()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(places.Log), 0o700), os.WriteFile(places.Log, []byte("one\ntwo\nthree \x1b[2J\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := b.run("server", "logs", "-n", "2"); got.status != 0 || got.stdout != "two\nthree \\x1b[2J\n" {
		t.Errorf("got %+v", got)
	}
	if got := b.run("server", "logs", "-n", "all"); got.stdout != "one\ntwo\nthree \\x1b[2J\n" {
		t.Errorf("got %+v", got)
	}
}
