package builtin_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/internal/maker"
	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/internal/pid1"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/builtin"
	"github.com/locald/locald/runtime/process"
	"github.com/locald/locald/runtime/runtimetest"
)

// The test binary is the keeper too, and what makes containers.
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
	if path, err := made(); err == nil && os.Getenv(makerVar) == "" {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// made is cmd/maker without the race detector, which makes a process that begins
// ten times slower. The tests of its rooms run with it.
var made = sync.OnceValues(func() (path string, err error) {
	if path = os.Getenv(makerVar); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "builtin-maker-")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "maker")
	build := exec.Command("go", "build", "-o", path, "../../cmd/maker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("%w: %s", err, out), os.RemoveAll(dir))
	}
	return path, os.Chmod(dir, 0o755) // for other users
})

// absent skips a test, unless LOCALD_TEST_REQUIRE says that it must run.
func absent(t *testing.T, reason string) {
	t.Helper()
	if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), "builtin") {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// served is a registry with the images that hack/testimages makes.
var served = sync.OnceValues(func() (host string, err error) {
	if host = os.Getenv(registryVar); host != "" {
		return host, nil
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	host = strings.TrimPrefix(server.URL, "http://")
	out, err := exec.Command("go", "run", "../../hack/testimages", "-load=false", "-push", host).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return host, nil
})

func shellImage(t *testing.T) string {
	t.Helper()
	host, err := served()
	if err != nil {
		absent(t, fmt.Sprintf("no test images (hack/test-deps makes them): %v", err))
	}
	return host + "/locald-test/shell:1"
}

func open(t *testing.T, owner runtime.Owner) *builtin.Runtime {
	t.Helper()
	return openAt(t, owner, t.TempDir())
}

// openAt is a runtime with its state and images in dir, that tries again at once.
func openAt(t *testing.T, owner runtime.Owner, dir string) *builtin.Runtime {
	t.Helper()
	p := process.New(keeper.Options{Dir: dir, Owner: string(owner), Log: os.Stderr})
	program, err := made()
	if err != nil {
		t.Fatal(err)
	}
	r := builtin.New(builtin.Options{Dir: dir, Process: p, Program: []string{program}, Users: os.Getenv(builtin.UsersVariable), Images: oci.Options{Tries: 3, Pause: 100 * time.Millisecond}})
	t.Cleanup(func() {
		if os.Getenv(builtin.UsersVariable) != "" {
			defer func() { _ = pid1.Remove(dir) }() // who deletes it else cannot
		}
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "containers", "*", "*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	if err := r.Ping(t.Context()); err != nil {
		absent(t, err.Error())
	}
	return r
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
	image := shellImage(t)
	runtimetest.Suite(t, runtimetest.Subject{
		Open: func(t *testing.T, owner runtime.Owner) runtime.Runtime { return open(t, owner) },
		Shell: func(_ *testing.T, script string) runtime.Spec {
			return runtime.Spec{Command: []string{"sh", "-c", script}, Image: &runtime.Image{Name: image}}
		},
		Output: output,
	})
}

// registryVar is set for a test that runs itself as an ordinary user: where the
// images are served.
const registryVar = "BUILTIN_TEST_REGISTRY"

// makerVar is too: what makes containers.
const makerVar = "BUILTIN_TEST_MAKER"

// TestSuiteAsAnOrdinaryUser is the same without being root, and so in a user
// namespace.
func TestSuiteAsAnOrdinaryUser(t *testing.T) {
	id := strconv.Itoa(100000 + os.Getpid())
	as(t, id, id)
}

// TestSuiteWithARange is the same with as many users as the system has set apart
// for this one, whom hack/test-deps makes.
func TestSuiteWithARange(t *testing.T) {
	tester, err := user.Lookup("locald-test")
	if err != nil {
		t.Skip(err)
	}
	as(t, tester.Uid, tester.Gid, builtin.UsersVariable+"="+builtin.RangeUser)
}

// as runs the tests of this package as somebody else.
func as(t *testing.T, uid, gid string, env ...string) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("TestSuite is it already")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip(err)
	}
	shellImage(t)
	host, _ := served()
	program, err := made()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "builtin-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pid1.Remove(dir) })
	self := filepath.Join(dir, "builtin.test")
	if out, err := exec.Command("cp", os.Args[0], self).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, path := range []string{dir, self} {
		if out, err := exec.Command("chown", uid+":"+gid, path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), setpriv, "--reuid="+uid, "--regid="+gid, "--clear-groups", self, "-test.run", "^Test(Suite|Volumes|Users)$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "HOME="+dir, "TMPDIR="+dir, registryVar+"="+host, makerVar+"="+program), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP: ") || !strings.Contains(string(out), "--- PASS: TestSuite/") {
		t.Skipf("as %s: %s", uid, out)
	}
}

func TestImages(t *testing.T) {
	runtimetest.Images(t, runtimetest.ImageSubject{
		Subject: runtimetest.Subject{
			Open:   func(t *testing.T, owner runtime.Owner) runtime.Runtime { return openAt(t, owner, t.TempDir()) },
			Output: output,
		},
		Itself: true,
		Small: func(t *testing.T, owner runtime.Owner) (runtime.Runtime, func()) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
				t.Skipf("no small file system: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			return openAt(t, owner, dir), func() {
				if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=160m"); err != nil {
					t.Fatal(err)
				}
			}
		},
	})
}
