package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
)

// Subject is the runtime under test and what the suite needs to drive it.
type Subject struct {
	// Open returns a runtime for one owner. It is called once or more a test,
	// and what it starts is released with t.Cleanup.
	Open func(t *testing.T, owner runtime.Owner) runtime.Runtime

	// Shell returns a spec that runs a POSIX shell script: its Command, Dir,
	// Env and Image. The suite sets everything else. The program
	// "/no/such/program" must not exist where the spec runs.
	Shell func(t *testing.T, script string) runtime.Spec

	// Output returns all that the log store in dir holds, stdout and stderr
	// alike, as text.
	Output func(t *testing.T, dir string) string
}

// long is how long a script stays up that a test means to stop. A test that
// needs it to pass has failed.
const long = "60"

// limit bounds each wait, so that a runtime that hangs fails with a name.
const limit = 45 * time.Second

// Suite runs the contract of package runtime against the subject. The names of
// the tests are the obligations.
func Suite(t *testing.T, subject Subject) {
	tests := []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"the kind is the kind of every ref", testKind},
		{"preparing twice costs nothing and creates nothing", testPrepare},
		{"an exit code is reported to every waiter, before and after the end", testExitCode},
		{"a signal that ended it is in the exit code", testSignalled},
		{"waiting ends with its context and changes nothing", testWaitCancelled},
		{"everything written is in the log when the wait returns", testOutput},
		{"the environment is the one of the spec", testEnv},
		{"an instance can be shown", testInfo},
		{"stopping asks before it forces", testAsks},
		{"the stop signal is the one of the spec", testStopSignal},
		{"a stubborn instance is forced", testStubborn},
		{"a shorter second stop shortens the first", testShorterStop},
		{"stopping twice is stopping once", testStopTwice},
		{"stopping many times at once is stopping once", testStopTogether},
		{"stopping an ended instance is not an error", testStopEnded},
		{"removing twice is removing once", testRemoveTwice},
		{"the end of the main process is the end of what it left behind", testLeftBehind},
		{"a running instance is listed, once", testListed},
		{"a found instance can be attached and stopped", testAttached},
		{"a removed instance is neither listed nor attached", testGone},
		{"the ref of one run never names another", testRefOfRun},
		{"owners do not see each other's instances", testOwners},
		{"a command that does not exist is invalid and named", testMissing},
		{"a start that was cancelled leaves nothing", testStartCancelled},
		{"cancelling after the start does nothing", testStartOver},
		{"a command can be run in an instance", testExec},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			owner := runtime.Owner(fmt.Sprintf("suite-%x", time.Now().UnixNano()))
			test.run(t, &bench{Subject: subject, owner: owner, Runtime: subject.Open(t, owner)})
		})
	}
}

// bench is one test's own runtime and owner.
type bench struct {
	Subject
	runtime.Runtime
	owner runtime.Owner
	runs  int
}

func (b *bench) shell(t *testing.T, script string) runtime.Spec {
	t.Helper()
	b.runs++
	spec := b.Shell(t, script)
	spec.Project = runtime.Project{ID: "suite-" + strings.TrimPrefix(string(b.owner), "suite-"), Name: "suite", Dir: t.TempDir()}
	spec.Service, spec.Run, spec.Owner = "web", b.runs, b.owner
	spec.Log = t.TempDir()
	spec.Grace = time.Second
	return spec
}

// up starts spec and sees to it that nothing is left of it after the test.
func (b *bench) up(t *testing.T, spec runtime.Spec) runtime.Instance {
	t.Helper()
	if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	instance, err := b.Start(t.Context(), spec)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
		defer cancel()
		if err := instance.Stop(ctx, time.Millisecond); err != nil {
			t.Errorf("Stop at the end of the test: %v", err)
		}
		if err := instance.Remove(ctx); err != nil {
			t.Errorf("Remove at the end of the test: %v", err)
		}
	})
	return instance
}

// upSaying starts a script and waits until it has printed "up".
func (b *bench) upSaying(t *testing.T, spec runtime.Spec) runtime.Instance {
	t.Helper()
	instance := b.up(t, spec)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(limit)
	for !strings.Contains(b.Output(t, spec.Log), "up") {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("the log never held \"up\"; it holds %q", b.Output(t, spec.Log))
		}
	}
	return instance
}

func wait(t *testing.T, instance runtime.Instance) runtime.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	exit, err := instance.Wait(ctx)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return exit
}

func stop(t *testing.T, instance runtime.Instance, grace time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := instance.Stop(ctx, grace); err != nil {
		t.Fatalf("Stop: %v", err)
	}
}

func (b *bench) refs(t *testing.T) []runtime.Ref {
	t.Helper()
	refs, err := b.List(t.Context(), b.owner)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return refs
}

func testKind(t *testing.T, b *bench) {
	spec := b.shell(t, "sleep "+long)
	ref := b.up(t, spec).Ref()
	if ref.Kind != b.Kind() || ref.Run != spec.ID() || ref.ID == "" {
		t.Errorf("Ref = %+v; want kind %q, run %q and an ID", ref, b.Kind(), spec.ID())
	}
}

func testPrepare(t *testing.T, b *bench) {
	spec := b.shell(t, "exit 0")
	for range 2 {
		if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
			t.Fatalf("Prepare: %v", err)
		}
	}
	if refs := b.refs(t); len(refs) != 0 {
		t.Errorf("List = %v; want nothing", refs)
	}
}

func testExitCode(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "exit 7"))
	var waiters sync.WaitGroup
	for range 3 {
		waiters.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if exit, err := instance.Wait(ctx); err != nil || !exit.Known || exit.Code != 7 {
				t.Errorf("Wait = %+v, %v; want a known 7", exit, err)
			}
		})
	}
	waiters.Wait()
	exit := wait(t, instance)
	if !exit.Known || exit.Code != 7 || exit.Signal != "" {
		t.Errorf("Wait after the end = %+v; want a known 7", exit)
	}
	if age := time.Since(exit.At); age < -time.Minute || age > limit {
		t.Errorf("Exit.At = %v, which is %v ago", exit.At, age)
	}
}

func testSignalled(t *testing.T, b *bench) {
	// A child is killed, because PID 1 of a container cannot kill itself.
	exit := wait(t, b.up(t, b.shell(t, "sh -c 'kill -KILL $$'; exit $?")))
	if !exit.Known || exit.Code != 137 {
		t.Errorf("Wait = %+v; want a known 137", exit)
	}
}

func testWaitCancelled(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "sleep "+long))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := instance.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v; want context.Canceled", err)
	}
	if refs := b.refs(t); len(refs) != 1 {
		t.Errorf("List = %v; want the instance still there", refs)
	}
}

func testOutput(t *testing.T, b *bench) {
	spec := b.shell(t, "echo to-stdout; echo to-stderr >&2; printf tail")
	wait(t, b.up(t, spec))
	got := b.Output(t, spec.Log)
	for _, want := range []string{"to-stdout", "to-stderr", "tail"} {
		if !strings.Contains(got, want) {
			t.Errorf("log = %q; want %q in it", got, want)
		}
	}
}

func testEnv(t *testing.T, b *bench) {
	spec := b.shell(t, `echo "<$GREETING>"`)
	spec.Env = append(slices.Clone(spec.Env), "GREETING=good morning, $HOME")
	wait(t, b.up(t, spec))
	if got, want := b.Output(t, spec.Log), "<good morning, $HOME>"; !strings.Contains(got, want) {
		t.Errorf("log = %q; want %q in it", got, want)
	}
}

func testInfo(t *testing.T, b *bench) {
	info := b.up(t, b.shell(t, "sleep "+long)).Info()
	if info.Engine == "" || info.PID == 0 && info.ContainerID == "" {
		t.Errorf("Info = %+v; want an engine, and a process or a container", info)
	}
}

func testAsks(t *testing.T, b *bench) {
	spec := b.shell(t, `trap 'echo farewell; exit 3' TERM; echo up; while :; do sleep 0.05; done`)
	instance := b.upSaying(t, spec)
	stop(t, instance, limit)
	if exit := wait(t, instance); exit.Code != 3 {
		t.Errorf("Wait = %+v; want the script's own 3", exit)
	}
	if got := b.Output(t, spec.Log); !strings.Contains(got, "farewell") {
		t.Errorf("log = %q; want the farewell in it", got)
	}
}

func testStopSignal(t *testing.T, b *bench) {
	spec := b.shell(t, `trap 'exit 4' TERM; trap 'exit 5' USR1; echo up; while :; do sleep 0.05; done`)
	spec.StopSignal = "SIGUSR1"
	instance := b.upSaying(t, spec)
	stop(t, instance, limit)
	if exit := wait(t, instance); exit.Code != 5 {
		t.Errorf("Wait = %+v; want 5, which SIGUSR1 gives", exit)
	}
}

// stubborn ignores what asks it to end, as its children do.
const stubborn = `trap '' TERM INT HUP; echo up; while :; do sleep 0.2; done`

func testStubborn(t *testing.T, b *bench) {
	instance := b.upSaying(t, b.shell(t, stubborn))
	stop(t, instance, 50*time.Millisecond)
	if exit := wait(t, instance); exit.Known && exit.Code != 137 {
		t.Errorf("Wait = %+v; want 137", exit)
	}
}

func testShorterStop(t *testing.T, b *bench) {
	instance := b.upSaying(t, b.shell(t, stubborn))
	patient := make(chan error, 1)
	go func() { patient <- instance.Stop(t.Context(), time.Hour) }()
	stop(t, instance, 10*time.Millisecond)
	select {
	case err := <-patient:
		if err != nil {
			t.Errorf("the first Stop: %v", err)
		}
	case <-time.After(limit):
		t.Error("the first Stop still waits")
	}
}

func testStopTwice(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "sleep "+long))
	for range 2 {
		stop(t, instance, 100*time.Millisecond)
	}
	first := wait(t, instance)
	stop(t, instance, 0)
	if again := wait(t, instance); again != first {
		t.Errorf("Wait = %+v and then %+v", first, again)
	}
}

func testStopTogether(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "sleep "+long))
	var stops sync.WaitGroup
	for range 10 {
		stops.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := instance.Stop(ctx, 100*time.Millisecond); err != nil {
				t.Errorf("Stop: %v", err)
			}
		})
	}
	stops.Wait()
	wait(t, instance)
}

func testStopEnded(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "exit 7"))
	wait(t, instance)
	stop(t, instance, time.Second)
	if exit := wait(t, instance); exit.Code != 7 {
		t.Errorf("Wait = %+v; want the code it ended with", exit)
	}
}

func testRemoveTwice(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "exit 0"))
	wait(t, instance)
	for range 2 {
		if err := instance.Remove(t.Context()); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
}

// The child would hold the output open for a minute if it were left alone.
func testLeftBehind(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "(trap '' TERM HUP; sleep "+long+") & exit 7"))
	if exit := wait(t, instance); exit.Code != 7 {
		t.Errorf("Wait = %+v; want 7", exit)
	}
}

func testListed(t *testing.T, b *bench) {
	ref := b.up(t, b.shell(t, "sleep "+long)).Ref()
	if refs := b.refs(t); len(refs) != 1 || refs[0] != ref {
		t.Errorf("List = %v; want just %v", refs, ref)
	}
}

func testAttached(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "sleep "+long))
	found, err := b.Attach(t.Context(), instance.Ref())
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	if found.Ref() != instance.Ref() {
		t.Errorf("Ref = %v; want %v", found.Ref(), instance.Ref())
	}
	stop(t, found, 100*time.Millisecond)
	wait(t, found)
	wait(t, instance)
}

func testGone(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "exit 0"))
	wait(t, instance)
	if err := instance.Remove(t.Context()); err != nil {
		t.Fatalf("Remove: %v", err)
	}
	if refs := b.refs(t); len(refs) != 0 {
		t.Errorf("List = %v; want nothing", refs)
	}
	if _, err := b.Attach(t.Context(), instance.Ref()); !errors.Is(err, runtime.ErrGone) {
		t.Errorf("Attach = %v; want ErrGone", err)
	}
}

func testRefOfRun(t *testing.T, b *bench) {
	first := b.up(t, b.shell(t, "exit 0"))
	wait(t, first)
	if err := first.Remove(t.Context()); err != nil {
		t.Fatalf("Remove: %v", err)
	}
	second := b.up(t, b.shell(t, "sleep "+long))
	if second.Ref() == first.Ref() {
		t.Fatalf("both runs are %v", first.Ref())
	}
	if _, err := b.Attach(t.Context(), first.Ref()); !errors.Is(err, runtime.ErrGone) {
		t.Errorf("Attach to the first run = %v; want ErrGone", err)
	}
}

func testOwners(t *testing.T, b *bench) {
	b.up(t, b.shell(t, "sleep "+long))
	other := b.owner + "-other"
	refs, err := b.Open(t, other).List(t.Context(), other)
	if err != nil || len(refs) != 0 {
		t.Errorf("List = %v, %v; want nothing", refs, err)
	}
}

func testMissing(t *testing.T, b *bench) {
	spec := b.shell(t, "")
	spec.Command = []string{"/no/such/program", "argument"}
	err := b.Prepare(t.Context(), spec, func(runtime.Progress) {})
	if err == nil {
		_, err = b.Start(t.Context(), spec)
	}
	if !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("error = %v; want ErrInvalid with the program's name", err)
	}
	if fault := new(runtime.Fault); !errors.As(err, &fault) || fault.Code != "command_missing" {
		t.Errorf("error = %#v; want a Fault with code command_missing", err)
	}
	if refs := b.refs(t); len(refs) != 0 {
		t.Errorf("List = %v; want nothing", refs)
	}
}

func testStartCancelled(t *testing.T, b *bench) {
	spec := b.shell(t, "sleep "+long)
	if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Start(ctx, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v; want context.Canceled", err)
	}
	if refs := b.refs(t); len(refs) != 0 {
		t.Errorf("List = %v; want nothing", refs)
	}
}

func testStartOver(t *testing.T, b *bench) {
	spec := b.shell(t, `trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done`)
	if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	instance, err := b.Start(ctx, spec)
	cancel()
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() { _ = instance.Remove(context.WithoutCancel(t.Context())) })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(limit)
	for !strings.Contains(b.Output(t, spec.Log), "up") {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the script never came up")
		}
	}
	stop(t, instance, limit)
	if exit := wait(t, instance); exit.Code != 3 {
		t.Errorf("Wait = %+v; want 3, given by an instance that was still up", exit)
	}
}

func testExec(t *testing.T, b *bench) {
	instance := b.up(t, b.shell(t, "sleep "+long))
	execer, ok := instance.(runtime.Execer)
	if !ok {
		t.Skip("instances of this runtime do not run further commands")
	}
	exit, output, err := execer.Exec(t.Context(), []string{"sh", "-c", "echo within; exit 3"})
	if err != nil || !exit.Known || exit.Code != 3 || !strings.Contains(string(output), "within") {
		t.Errorf("Exec = %+v, %q, %v; want a known 3 and its output", exit, output, err)
	}
}
