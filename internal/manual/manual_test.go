package manual

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated parts of docs/manual anew")

// page reads a page of the manual.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs/manual", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// generated compares the part of a page between "<!-- part: generated … -->"
// and "<!-- end -->" with what it should be and, with -update, makes it so.
func generated(t *testing.T, name, part, want string) {
	t.Helper()
	text := page(t, name)
	begin := "<!-- " + part + ": generated, see CONTRIBUTING.md -->\n"
	before, rest, found := strings.Cut(text, begin)
	got, after, closed := strings.Cut(rest, "\n<!-- end -->\n")
	if !found || !closed {
		t.Fatalf("%s has no part %s", name, part)
	}
	want = "\n" + strings.TrimSpace(want) + "\n"
	if got == want {
		return
	}
	if !*update {
		has, says := firstDifference(got, want)
		t.Errorf("%s, part %s is not what the code says (go test ./internal/manual -update)\ngot  %s\nwant %s", name, part, has, says)
		return
	}
	text = before + begin + want + "\n<!-- end -->\n" + after
	if err := os.WriteFile(filepath.Join("../../docs/manual", name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// firstDifference is the first lines of two texts that are not the same.
func firstDifference(a, b string) (ofA, ofB string) {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range max(len(as), len(bs)) {
		ofA, ofB = "(the end)", "(the end)"
		if i < len(as) {
			ofA = as[i]
		}
		if i < len(bs) {
			ofB = bs[i]
		}
		if ofA != ofB {
			break
		}
	}
	return ofA, ofB
}

// mentions fails for every word that a page does not have in backticks, alone
// or with something behind it.
func mentions(t *testing.T, name string, words ...string) {
	t.Helper()
	text := page(t, name)
	if len(words) == 0 {
		t.Errorf("%s: nothing to look for", name)
	}
	for _, word := range words {
		if !regexp.MustCompile("`" + regexp.QuoteMeta(word) + "[^a-z_]").MatchString(text) {
			t.Errorf("%s does not mention %s", name, word)
		}
	}
}
