package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFullLogIsKeptAndANewOneBegun(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "locald.log")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	stderr, stdout := open(), open()
	log := &rotated{path: path, full: 100, std: []*os.File{stderr, stdout}}
	old := strings.Repeat("old\n", 25)
	for _, line := range []string{old, "new\n"} {
		if _, err := log.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stdout.WriteString("panic\n"); err != nil { // what the Go runtime writes by itself
		t.Fatal(err)
	}
	for name, want := range map[string]string{path: "new\npanic\n", path + ".1": old} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", filepath.Base(name), got, err, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want 0600", info.Mode(), err)
	}
}

func TestALogThatSomebodyMovedIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "locald.log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log := &rotated{path: path, full: 1, std: []*os.File{f}}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := log.Write([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "theirs" {
		t.Errorf("%q, %v", got, err)
	}
}
