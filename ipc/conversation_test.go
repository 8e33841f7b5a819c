package ipc_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/ipc"
)

var update = flag.Bool("update", false, "write what the server answers into the conversations")

// answers is a method that gives one canned answer, after checking that the
// arguments came through whole.
func answers[A, R any](result R) ipc.Method {
	return ipc.Answer(func(_ context.Context, args A) (R, error) {
		return result, unlessWhole(args)
	})
}

func streams[A, V any](values ...V) ipc.Method {
	return ipc.Stream(func(_ context.Context, args A, send func(V) error) error {
		if err := unlessWhole(args); err != nil {
			return err
		}
		for _, v := range values {
			if err := send(v); err != nil {
				return err
			}
		}
		return nil
	})
}

// unlessWhole makes a handler fail with what it got when a service is named
// "echo", so that a conversation can show what a handler receives.
func unlessWhole(args any) error {
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	if bytes.Contains(text, []byte(`"echo"`)) {
		return &ipc.Error{Code: ipc.CodeUnknownService, Message: string(text), Service: "echo"}
	}
	return nil
}

func cannedTable() ipc.Table {
	at := time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.UTC)
	const began = "2026-11-23T10:00:00.123456789Z"
	zero, one := 0, 1
	status := ipc.Status{
		Version: 1,
		Project: ipc.ProjectName{Name: "shop", Dir: "/home/ana/shop"},
		Daemon:  ipc.DaemonName{PID: 4711, Version: "0.1.0", StartedAt: began},
		Services: []ipc.Service{
			{
				Name: "db", Type: "postgres", Runtime: "docker", Desired: "up", State: "running", Health: "healthy",
				ContainerID: "9f1c", Port: 40123, Ports: map[string]int{}, URL: "postgresql://shop:***@127.0.0.1:40123/shop",
				Run: 1, StartedAt: "2026-11-23T10:00:00Z", ReadyAt: "2026-11-23T10:00:01Z", DependsOn: []string{},
			},
			{
				Name: "migrate", Type: "task", Runtime: "process", Desired: "up", State: "completed", Health: "none",
				Ports: map[string]int{}, Run: 3, ExitCode: &zero, DependsOn: []string{"db"},
			},
		},
	}
	last := ipc.Event{Time: at, Event: ipc.EventDone, Exit: &zero, Status: &status}
	stopped := []ipc.Event{
		{Time: at, Service: "web", Event: ipc.EventStopping, Message: "depends on db"},
		{Time: at, Service: "web", Event: ipc.EventStopped},
		{Time: at, Event: ipc.EventDone, Exit: &zero},
	}
	return ipc.Table{
		ipc.CallPing: answers[ipc.NoArgs](ipc.Daemon{
			PID: 4711, Version: "0.1.0", Protocol: ipc.Protocol, StartedAt: began, State: "/home/ana/.local/share/locald",
			Socket: "/tmp/locald.sock", Log: "/tmp/locald.log", Wanted: 3, Restored: true,
		}),
		ipc.CallUp: streams[ipc.UpArgs](
			ipc.Event{Time: at, Service: "web", Event: ipc.EventPending, Message: "waits for db"},
			ipc.Event{Time: at, Service: "db", Event: ipc.EventProgress, Message: "pulling postgres:16", Current: 1048576, Total: 52428800},
			ipc.Event{Time: at, Service: "db", Event: ipc.EventProgress, Message: "pulling postgres:16", Layer: "4f4fb700ef54", Phase: "downloading", Current: 524288, Total: 13107200},
			ipc.Event{Time: at, Service: "db", Event: ipc.EventHealthy},
			last,
		),
		ipc.CallDown: streams[ipc.DownArgs](stopped...),
		ipc.CallPlan: answers[ipc.UpArgs](ipc.Plan{Changes: []ipc.Change{
			{Service: "web", Op: "restart", Cause: "command changed"},
			{Service: "db", Op: "keep", Cause: "nothing changed"},
		}}),
		ipc.CallStatus: answers[ipc.StatusArgs](status),
		ipc.CallWatch:  streams[ipc.StatusArgs](status),
		ipc.CallList: answers[ipc.NoArgs](ipc.Projects{Projects: []ipc.ProjectSummary{
			{ProjectName: status.Project, Wanted: 3, Ready: 2, Failed: 1, UsedAt: at},
			{ProjectName: ipc.ProjectName{Name: "shop", Dir: "/home/ana/shop-2", Label: "shop (shop-2)"}, Missing: true, UsedAt: at},
		}}),
		ipc.CallHistory: answers[ipc.HistoryArgs](ipc.History{Runs: []ipc.Run{
			{Service: "web", Run: 2, Start: "2026-11-23T10:00:05Z", Ready: "2026-11-23T10:00:06Z"},
			{Service: "web", Run: 1, Start: "2026-11-23T10:00:00Z", End: "2026-11-23T10:00:04Z", ExitCode: &one, Reason: "exited with 1"},
		}}),
		ipc.CallEnv: answers[ipc.EnvArgs](ipc.Env{Vars: []ipc.Var{
			{Name: "DATABASE_URL", Value: "***", Origin: "injected (db)", Secret: true},
			{Name: "LOG", Value: "debug", Origin: "locald.toml:12"},
		}}),
		ipc.CallWait: streams[ipc.WaitArgs](ipc.Event{Time: at, Service: "web", Event: ipc.EventHealthy}, last),
		ipc.CallStart: streams[ipc.ServiceArgs](
			ipc.Event{Time: at, Service: "web", Event: ipc.EventStarting}, ipc.Event{Time: at, Service: "web", Event: ipc.EventHealthy}, last,
		),
		ipc.CallStop: streams[ipc.ServiceArgs](stopped...),
		ipc.CallRestart: streams[ipc.ServiceArgs](
			ipc.Event{
				Time: at, Service: "web", Event: ipc.EventFailed, Message: "exited with 1", Code: ipc.CodeExited,
				Lines: []ipc.LogLine{{Seq: 7, Time: at, Service: "web", Run: 3, Stream: "stderr", Line: "no such table: users"}},
			},
			ipc.Event{Time: at, Event: ipc.EventFailed, Exit: &one},
		),
		ipc.CallRun: streams[ipc.RunArgs](
			ipc.Event{Time: at, Service: "db", Event: ipc.EventHealthy},
			ipc.Event{Time: at, Event: ipc.EventDone, Exit: &zero, Target: &ipc.Target{
				Dir: "/home/ana/shop/web", Env: []string{"PATH=/usr/bin:/bin", "PORT=3000"},
			}},
		),
		ipc.CallLogs: streams[ipc.LogsArgs](
			ipc.LogLine{Seq: 1042, Time: at, Service: "db", Run: 1, Stream: "stderr", Line: "ready to accept connections"},
			ipc.LogLine{Seq: 1043, Time: at, Service: "web", Run: 2, Stream: "event", Line: "exited with 1; restarting in 0.5s"},
			ipc.LogLine{Seq: 1044, Time: at, Service: "web", Run: 2, Stream: "gap", MissingBytes: 18244},
			ipc.LogLine{Seq: 1045, Time: at, Service: "web", Run: 2, Stream: "stdout", Line: "caf\uFFFD", B64: []byte("caf\xe9"), Partial: true},
		),
		ipc.CallStore: streams[ipc.LogsArgs](ipc.LogStore{
			Dir: "/home/ana/.local/share/locald/projects/shop-1a2b3c4d/logs/web", FromRun: 2, ToRun: 2,
		}),
		ipc.CallLeft: answers[ipc.LeftArgs](ipc.Leftovers{Things: []ipc.Thing{
			{Kind: "process", State: ipc.ThingLeft, Name: "sleep 1000", PID: 4711, Project: "shop", Dir: "/home/ana/shop", Service: "web", Run: 3, Remedy: "locald -C /home/ana/shop down"},
			{Kind: "file", State: ipc.ThingKept, Name: "/home/ana/.local/share/locald/projects/shop-1a2b3c4d/data/db", Project: "shop", Dir: "/home/ana/shop", Service: "db", Bytes: 47185920, Detail: "data", Remedy: "locald -C /home/ana/shop down --volumes db"},
		}}),
		ipc.CallImages: answers[ipc.NoArgs](ipc.Images{
			Images: []ipc.Image{{
				Name: "postgres:15", Digest: "sha256:0123456789abcdef", Size: 98_400_000, Engine: "builtin", Held: true, UsedAt: "2026-11-23T10:00:00Z",
				UsedBy: []ipc.ImageUse{{Project: "shop", Dir: "/home/ana/shop", Service: "db"}},
			}},
			Notes: []string{"the images of docker are its own: docker image prune"},
		}),
		ipc.CallPrune: answers[ipc.PruneArgs](ipc.Pruned{
			Removed: []ipc.Image{{Name: "redis:7", Digest: "sha256:fedcba9876543210", Size: 1234, Engine: "builtin", UsedBy: []ipc.ImageUse{}}}, Freed: 1234,
		}),
		ipc.CallDoctor: answers[ipc.NoArgs](ipc.Doctor{Checks: []ipc.Check{
			{Area: "engine", Name: "docker", OK: true, Detail: "29.0 at unix:///var/run/docker.sock"},
			{Area: "postgres", Name: "binaries", Detail: "none found", Remedy: "apt install postgresql"},
		}}),
		ipc.CallStopAll: streams[ipc.NoArgs](stopped...),
	}
}

// exchange is one request and what comes back.
type exchange struct {
	request string
	answers []string
}

func readConversation(t *testing.T, path string) []exchange {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []exchange
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "> "):
			all = append(all, exchange{request: line[2:]})
		case strings.HasPrefix(line, "< ") && len(all) > 0:
			last := &all[len(all)-1]
			last.answers = append(last.answers, line[2:])
		case line != "":
			t.Fatalf("%s: a line is neither sent (>) nor received (<): %q", path, line)
		}
	}
	return all
}

// converse sends one line and returns the lines that come back.
func converse(t *testing.T, socket, request string) []string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(request + "\n")); err != nil {
		t.Fatal(err)
	}
	var got []string
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		got = append(got, lines.Text())
	}
	return got
}

func TestConversations(t *testing.T) {
	t.Parallel()
	socket := serve(t, &ipc.Server{Methods: cannedTable()})
	paths, err := filepath.Glob("testdata/*.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".ndjson"), func(t *testing.T) {
			all := readConversation(t, path)
			var text strings.Builder
			for _, e := range all {
				got := converse(t, socket, e.request)
				if want := strings.Join(e.answers, "\n"); !*update && strings.Join(got, "\n") != want {
					t.Errorf("%s\ngot\n%s\nwant\n%s", e.request, strings.Join(got, "\n"), want)
				}
				text.WriteString("> " + e.request + "\n")
				for _, line := range got {
					text.WriteString("< " + line + "\n")
				}
			}
			if *update {
				if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestEveryCallHasAConversation(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	table := cannedTable()
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Call") {
			return true
		}
		found++
		call, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := table[call]; !ok {
			t.Errorf("%s: no canned answer", call)
		}
		if _, err := os.Stat(filepath.Join("testdata", call+".ndjson")); err != nil {
			t.Errorf("%s: no conversation: %v", call, err)
		}
		return true
	})
	if found < 10 {
		t.Errorf("found %d calls in types.go", found)
	}
}
