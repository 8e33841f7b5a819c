package containerd_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	hackcontainerd "github.com/locald/locald/hack/containerd"
	"github.com/locald/locald/hack/faultregistry"
	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/internal/maker"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/containerd"
	"github.com/locald/locald/runtime/process"
	"github.com/locald/locald/runtime/runtimetest"
)

// limit bounds every wait, so that what hangs fails with a name.
const limit = 45 * time.Second

// The test binary is the keeper too, and what stands beside containers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "keeper":
			os.Exit(keeper.Main(os.Args[2:]))
		case "container":
			os.Exit(maker.Main(os.Args[2:]))
		}
	}
	code := m.Run()
	for _, end := range atEnd {
		end()
	}
	os.Exit(code)
}

// atEnd is what is shared by tests and has to end after all of them.
var atEnd []func()

// served is a registry with the images that hack/testimages makes.
var served = sync.OnceValues(func() (host string, err error) {
	registry, err := faultregistry.Listen("127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, err = registry.PushTestImages()
	return registry.Addr(), err
})

func imageNamed(t *testing.T, name string) string {
	t.Helper()
	host, err := served()
	if err != nil {
		absent(t, fmt.Sprintf("no test images (hack/test-deps makes them): %v", err))
	}
	return host + "/locald-test/" + name
}

// absent skips a test, unless LOCALD_TEST_REQUIRE says that there must be a
// containerd.
func absent(t *testing.T, reason string) {
	t.Helper()
	if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), "containerd") {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// server is a containerd of the tests' own.
type server struct{ *hackcontainerd.Server }

// shared is the one that most tests use.
var shared = sync.OnceValues(func() (server, error) {
	s, err := hackcontainerd.New()
	if err != nil {
		return server{}, err
	}
	atEnd = append(atEnd, func() { _ = s.Close() })
	return server{s}, s.Start()
})

func (s server) env(name string) string {
	if name == "CONTAINERD_ADDRESS" {
		return s.Address()
	}
	return os.Getenv(name)
}

func sharedServer(t *testing.T) server {
	t.Helper()
	s, err := shared()
	if err != nil {
		absent(t, "no containerd (hack/test-deps gets one): "+err.Error())
	}
	return s
}

// initFile is a locald that needs no libraries, which a test binary with the race
// detector does.
var initFile = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "locald-init-")
	if err != nil {
		return "", err
	}
	atEnd = append(atEnd, func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "locald")
	build := exec.Command("go", "build", "-o", file, "../../cmd/locald")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// bench is a runtime as a daemon has it.
type bench struct {
	*containerd.Runtime
	server  server
	dir     string
	owner   runtime.Owner
	process *process.Runtime
}

func open(t *testing.T, s server, owner runtime.Owner, more func(*containerd.Options)) *bench {
	t.Helper()
	file, err := initFile()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := process.New(keeper.Options{Dir: dir, Owner: string(owner), Log: os.Stderr})
	o := containerd.Options{Owner: owner, Dir: dir, Process: p, Init: file, Getenv: s.env}
	if more != nil {
		more(&o)
	}
	b := &bench{Runtime: containerd.New(o), server: s, dir: dir, owner: owner, process: p}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
		defer cancel()
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := b.Sweep(ctx); err != nil {
			t.Errorf("Sweep: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "containerd", "*", "*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if left := s.ctr(t, "containers", "ls", "-q", `labels."dev.locald.instance"==`+string(owner)); left != "" {
			t.Errorf("left in containerd: %v", left)
		}
	})
	return b
}

// ctr runs containerd's own client, as somebody else on the machine would.
func (s server) ctr(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ctr", append([]string{"-a", s.Address(), "-n", containerd.Namespace}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func output(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := logs.OpenReader(dir).Read(t.Context(), logs.Query{Tail: -1, Output: true}, func(l logs.Line) error {
		b.Write(l.Data)
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSuite(t *testing.T) {
	s := sharedServer(t)
	image := imageNamed(t, "shell:1")
	runtimetest.Suite(t, runtimetest.Subject{
		Open: func(t *testing.T, owner runtime.Owner) runtime.Runtime { return open(t, s, owner, nil) },
		Shell: func(_ *testing.T, script string) runtime.Spec {
			return runtime.Spec{Command: []string{"sh", "-c", script}, Image: &runtime.Image{Name: image}}
		},
		Output: output,
	})
}
