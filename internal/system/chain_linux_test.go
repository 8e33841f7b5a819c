package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestChain starts services that depend on one another in a row and are ready
// after 100 ms each. What locald adds is at most a tenth of that, the start of
// the command itself included. A busy machine gets more attempts, not more time.
func TestChain(t *testing.T) {
	const (
		length   = 20
		each     = 100 * time.Millisecond
		critical = length * each
		allowed  = critical + critical/10
	)
	var toml strings.Builder
	toml.WriteString("[project]\nname = \"chain\"\n")
	for n := range length {
		fmt.Fprintf(&toml, "\n[services.s%02d]\ncommand = %s\n", n, ready(t))
		if n > 0 {
			fmt.Fprintf(&toml, "depends_on = [\"s%02d\"]\n", n-1)
		}
	}
	s := newSandbox(t, toml.String())
	s.run("server", "start", "--daemonize")
	var took []time.Duration
	for range 5 {
		r := s.run("up")
		status := s.status()
		running(t, status)
		s.exactly(status)
		took = append(took, r.took)
		s.run("down")
		if r.took < critical {
			t.Fatalf("up took %v, less than its critical path: something was taken for ready that was not", r.took)
		}
		if r.took <= allowed {
			break
		}
	}
	t.Logf("locald up with a chain of %d: %v, critical path %v", length, took, critical)
	if best := percentile(took, 0); best > allowed {
		t.Errorf("at best %v, want at most %v", best, allowed)
	}
}

// ready is the command of a service that listens after 100 ms. In C where there
// is a compiler, because its start belongs to what is measured.
func ready(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		return fmt.Sprintf("[%q, \"ready\", \"100ms\"]", service())
	}
	path := filepath.Join(built, "ready")
	if _, err := os.Stat(path); err != nil {
		if out, err := exec.CommandContext(t.Context(), "gcc", "-O2", "-static", "-o", path, "testdata/ready.c").CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v: %s", err, out)
		}
	}
	return fmt.Sprintf("[%q]", path)
}
