package system

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// full reports whether every cell of the large tables is wanted, and not a
// sample of them: make soak and make promises ask for it.
func full() bool { return os.Getenv("LOCALD_TEST_FULL") == "1" }

// times is how often something is tried.
func times(sample, all int) int {
	if full() {
		return all
	}
	return sample
}

// promise names the sentences of docs/promises.md that a test is for, "P1" for
// example. hack/promises reads it from the test's output.
func promise(t *testing.T, ids ...string) {
	t.Helper()
	t.Attr("promise", strings.Join(ids, " "))
}

// tried says how many trials a test has made of its promises and how many of
// them did not hold.
func tried(t *testing.T, runs, failures int) {
	t.Helper()
	t.Attr("runs", strconv.Itoa(runs))
	t.Attr("failures", strconv.Itoa(failures))
}
