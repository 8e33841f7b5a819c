package container_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
	"github.com/locald/locald/runtime/runtimetest"
)

const (
	probeImage   = "locald-test/probe:1"
	healthyImage = "locald-test/healthy:1"
	shellImage   = "locald-test/shell:1"
)

// limit bounds every wait, so that what hangs fails with a name.
const limit = 45 * time.Second

func TestSuite(t *testing.T) {
	needEngine(t)
	runtimetest.Suite(t, runtimetest.Subject{
		Open: func(t *testing.T, owner runtime.Owner) runtime.Runtime {
			return open(t, container.Options{Owner: owner})
		},
		Shell: func(_ *testing.T, script string) runtime.Spec {
			host := os.Getenv(networkVar) == "host"
			return runtime.Spec{Command: []string{"sh", "-c", script}, Image: &runtime.Image{Name: shellImage, Host: host}}
		},
		Output: written,
	})
}

// needEngine skips a test where there is no Docker engine with the test
// images, unless LOCALD_TEST_REQUIRE says that there must be.
func needEngine(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "image", "inspect", "-f", "{{.Id}}", probeImage, healthyImage, shellImage).CombinedOutput()
	if err == nil {
		return
	}
	reason := fmt.Sprintf("no Docker engine with the test images (hack/test-deps makes them): %v: %s", err, out)
	if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), "docker") {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// open returns a runtime whose containers, networks and volumes are removed
// after the test, whatever became of it.
func open(t *testing.T, options container.Options) *container.Runtime {
	t.Helper()
	if options.Streams == nil {
		options.Streams = files
	}
	r := container.New(options)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		cleanUp(t, options.Owner)
	})
	return r
}

func cleanUp(t *testing.T, owner runtime.Owner) {
	t.Helper()
	filter := "label=dev.locald.instance=" + string(owner)
	for _, kind := range [][]string{{"container", "ls", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}} {
		ids := strings.Fields(docker(t, append(kind, "--filter", filter)...))
		remove := []string{kind[0], "rm"}
		if kind[0] == "container" {
			remove = append(remove, "-fv")
		}
		if len(ids) > 0 {
			docker(t, append(remove, ids...)...)
		}
	}
	until(t, "what was built is removed", func() bool {
		built := exec.Command("docker", "image", "ls", "-q", "--filter", "label=dev.locald.built.instance="+string(owner))
		out, err := built.Output()
		if ids := strings.Fields(string(out)); len(ids) > 0 {
			docker(t, append([]string{"image", "rm", "-f"}, ids...)...)
		}
		return err == nil // Podman fails when another image goes while it lists them
	})
}

// engineVar names the engine behind DOCKER_HOST when the tests run themselves
// over another one than Docker.
const engineVar = "CONTAINER_TEST_ENGINE"

// networkVar is "host" where the engine has no other network.
const networkVar = "CONTAINER_TEST_NETWORK"

// engineName is the engine that the tests run over.
func engineName() string { return cmp.Or(os.Getenv(engineVar), "docker") }

// docker runs Docker's own client, as somebody else on the machine would.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	if args[0] == "run" && engineName() == "podman" { // its own limits are more than some machines allow
		args = append([]string{"run", "--ulimit=nofile=1024", "--ulimit=nproc=1024"}, args[1:]...)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// files is a log store of two files.
func files(dir string, _ int) (stdout, stderr *os.File, err error) {
	const flags = os.O_CREATE | os.O_APPEND | os.O_WRONLY
	if stdout, err = os.OpenFile(filepath.Join(dir, "stdout"), flags, 0o600); err != nil {
		return nil, nil, err
	}
	stderr, err = os.OpenFile(filepath.Join(dir, "stderr"), flags, 0o600)
	return stdout, stderr, err
}

func written(t *testing.T, dir string) string {
	t.Helper()
	return read(t, dir, "stdout") + read(t, dir, "stderr")
}

func read(t *testing.T, dir, stream string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, stream))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(content)
}

var owners atomic.Int64

// bench is one test's runtime, owner and project.
type bench struct {
	*container.Runtime
	owner   runtime.Owner
	project runtime.Project
	runs    int
}

func newBench(t *testing.T, options container.Options) *bench {
	t.Helper()
	needEngine(t)
	id := fmt.Sprintf("ctest-%x-%d", time.Now().UnixNano(), owners.Add(1))
	options.Owner = runtime.Owner(id)
	return &bench{
		Runtime: open(t, options), owner: options.Owner,
		project: runtime.Project{ID: id, Name: "shop", Dir: t.TempDir()},
	}
}

// probe is a spec that does what the arguments say.
func (b *bench) probe(t *testing.T, arguments ...string) runtime.Spec {
	t.Helper()
	b.runs++
	return runtime.Spec{
		Project: b.project, Service: "web", Run: b.runs, Owner: b.owner, Command: arguments,
		Log: t.TempDir(), Grace: time.Second, Image: &runtime.Image{Name: probeImage},
	}
}

// up starts a spec and ends it with the test.
func (b *bench) up(t *testing.T, spec runtime.Spec) runtime.Instance {
	t.Helper()
	instance, err := b.Start(t.Context(), spec)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
		defer cancel()
		if err := instance.Stop(ctx, 0); err != nil {
			t.Errorf("Stop at the end of the test: %v", err)
		}
		if err := instance.Remove(ctx); err != nil {
			t.Errorf("Remove at the end of the test: %v", err)
		}
	})
	return instance
}

// done runs a spec to its end and returns what it wrote.
func (b *bench) done(t *testing.T, spec runtime.Spec) (stdout string, exit runtime.Exit) {
	t.Helper()
	exit = wait(t, b.up(t, spec))
	return read(t, spec.Log, "stdout"), exit
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

// until polls for what there is no event for.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(limit)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not in %s", what, limit)
		}
	}
}

// saying waits until the run has printed the word.
func saying(t *testing.T, spec runtime.Spec, word string) {
	t.Helper()
	until(t, "the output has "+word, func() bool { return strings.Contains(written(t, spec.Log), word) })
}
