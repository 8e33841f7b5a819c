package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What TestMain builds, in a folder of its own.
var built string

func locald() string  { return filepath.Join(built, "locald") }
func service() string { return filepath.Join(built, "service") }

func TestMain(m *testing.M) { os.Exit(run(m)) }

// builtVar is set for a test that runs itself in namespaces of its own: what is
// built already.
const builtVar = "SYSTEM_TEST_BUILT"

func run(m *testing.M) int {
	if built = os.Getenv(builtVar); built != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "locald-system-")
	if err == nil {
		defer os.RemoveAll(dir)
		built = dir
		err = os.Chmod(dir, 0o755)
	}
	for _, program := range [][2]string{{locald(), "../../cmd/locald"}, {service(), "./testdata/service"}} {
		if err == nil {
			err = build(program[0], program[1])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes a program as it is delivered: without cgo, whatever the tests
// themselves are built with.
func build(path, source string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", source, err, out)
	}
	return nil
}

const (
	shellImage    = "locald-test/shell:1"
	postgresImage = "postgres:15"
)

// needEngine skips a test where there is no Docker engine with the test
// images, unless LOCALD_TEST_REQUIRE says that there must be.
func needEngine(t *testing.T) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", "image", "inspect", "-f", "{{.Id}}", shellImage, postgresImage).CombinedOutput()
	if err != nil {
		missing(t, "docker", fmt.Sprintf("no Docker engine with the test images (hack/test-deps makes them): %v: %s", err, out))
	}
}

// needPostgres skips a test where no Postgres programs are installed.
func needPostgres(t *testing.T) {
	t.Helper()
	if found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); err != nil || len(found) == 0 {
		missing(t, "postgres", "no Postgres in /usr/lib/postgresql")
	}
	if _, err := exec.LookPath("psql"); err != nil {
		missing(t, "postgres", err.Error())
	}
}

func missing(t *testing.T, what, reason string) {
	t.Helper()
	if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), what) {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
