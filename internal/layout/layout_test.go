package layout

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/locald/locald"

// doors lists, for every room, the rooms it may import. A room that is not
// listed fails the test: adding one is an architectural decision, so it is made
// here and in ARCHITECTURE.md.
var doors = map[string][]string{
	"runtime":             {},
	"runtime/process":     {"runtime", "internal/keeper", "internal/sockets"},
	"runtime/builtin":     {"runtime", "runtime/outer", "internal/network", "internal/oci", "internal/pid1"},
	"runtime/containerd":  {"runtime", "runtime/outer", "internal/keeper", "internal/oci", "internal/pid1"},
	"runtime/outer":       {"runtime", "internal/network", "internal/oci", "internal/pid1"},
	"runtime/remote":      {"runtime", "internal/wire"},
	"runtime/container":   {"runtime", "internal/build", "internal/keeper"},
	"runtime/runtimetest": {"runtime", "hack/faultregistry"},
	"supervisor":          {"runtime"},
	"ipc":                 {},
	"restore":             {"runtime"},

	"internal/build":        {"runtime"},
	"internal/config":       {},
	"internal/engines":      {"runtime", "runtime/remote"},
	"internal/engines/host": {"runtime", "runtime/builtin", "runtime/container", "runtime/containerd", "runtime/outer", "runtime/remote", "internal/engines", "internal/probe"},
	"internal/env":          {"internal/config"},
	"internal/fork":         {"internal/fork/started"},
	"internal/fork/started": {},
	"internal/keeper":       {"internal/fork", "internal/logs", "internal/wire"},
	"internal/layout":       {},
	"internal/logs":         {},
	"internal/manual":       {},
	"internal/maker":        {"internal/network", "internal/pid1"},
	"internal/network":      {},
	"internal/oci":          {},
	"internal/pid1":         {},
	"internal/ports":        {"internal/sockets"},
	"internal/postgres":     {"runtime"},
	"internal/probe":        {"runtime", "internal/sockets"},
	"internal/sockets":      {},
	"internal/state":        {"runtime"},
	"internal/system":       {},
	"internal/wire":         {},
	"internal/project": {
		"runtime", "supervisor", "internal/build", "internal/config", "internal/env", "internal/logs", "internal/ports",
		"internal/postgres", "internal/probe", "internal/state",
	},
	"internal/daemon": {
		"ipc", "restore", "runtime", "runtime/process", "supervisor",
		"internal/config", "internal/engines", "internal/keeper", "internal/logs", "internal/postgres", "internal/project", "internal/sockets", "internal/state",
	},
	"internal/cli": {"ipc", "runtime", "internal/config", "internal/engines", "internal/logs", "internal/state", "internal/pid1"},
	"cmd/locald":   {"ipc", "internal/cli", "internal/daemon", "internal/engines", "internal/engines/host", "internal/keeper", "internal/maker"},
	"cmd/engines":  {"internal/engines", "internal/engines/host", "internal/maker"},
	"cmd/maker":    {"internal/maker"},
}

// outside are folders that are not part of the house: examples, and programs
// for people who work on it.
var outside = []string{"bench", "examples", "hack"}

// TestDoors reads the files itself, rather than asking "go list", so that the
// go command knows to run it again when an import changes.
func TestDoors(t *testing.T) {
	root := os.DirFS("../..")
	seen := map[string]bool{}
	err := fs.WalkDir(root, ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git" || slices.Contains(outside, file)):
			return fs.SkipDir
		case !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		room := path.Dir(file)
		may, known := doors[room]
		if !known && !seen[room] {
			t.Errorf("%s is not on the map: add it to the doors here and to ARCHITECTURE.md", room)
		}
		seen[room] = true
		for _, target := range imports(t, root, file) {
			if known && !slices.Contains(may, target) {
				t.Errorf("%s: %s may not import %s", file, room, target)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for room := range doors {
		if !seen[room] {
			t.Errorf("%s is on the map and not in the house: delete its row", room)
		}
	}
}

// TestMap: the table of rooms in ARCHITECTURE.md has the same rooms and doors.
func TestMap(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## The map\n")
	table, _, _ = strings.Cut(table, "\n## ")
	drawn := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		room := strings.Trim(cells[1], " `")
		if _, known := doors[room]; !known || drawn[room] {
			t.Errorf("ARCHITECTURE.md has %s, which has no row here or is there twice", room)
		}
		drawn[room] = true
		var may []string
		if said := strings.TrimSpace(cells[3]); said != "nothing" {
			for target := range strings.SplitSeq(said, ", ") {
				may = append(may, strings.Trim(target, "`"))
			}
		}
		slices.Sort(may)
		if want := slices.Sorted(slices.Values(doors[room])); !slices.Equal(may, want) {
			t.Errorf("ARCHITECTURE.md lets %s import %v, the doors here %v", room, may, want)
		}
	}
	for room := range doors {
		if !drawn[room] {
			t.Errorf("%s is not in the table of ARCHITECTURE.md", room)
		}
	}
}

// TestRooms: every room says in its package comment what it is for.
func TestRooms(t *testing.T) {
	root := os.DirFS("../..")
	for room := range doors {
		files, err := fs.Glob(root, room+"/*.go")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(f string) bool { return documented(t, root, f) }) {
			t.Errorf("%s has no package comment", room)
		}
	}
}

func documented(t *testing.T, root fs.FS, file string) bool {
	t.Helper()
	if strings.HasSuffix(file, "_test.go") {
		return false
	}
	src, err := fs.ReadFile(root, file)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Doc != nil
}

// imports returns the rooms a file imports.
func imports(t *testing.T, root fs.FS, file string) []string {
	t.Helper()
	src, err := fs.ReadFile(root, file)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var rooms []string
	for _, spec := range parsed.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if room, ours := strings.CutPrefix(name, module+"/"); ours {
			rooms = append(rooms, room)
		}
	}
	return rooms
}
