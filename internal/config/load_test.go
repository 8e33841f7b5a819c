package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata")

// TestLoad loads the files of each testdata/load/*.txtar from the disk and
// compares what comes of them with its last file, "result" or "problems". The
// comment of an archive may say "file: NAME" and "dir: NAME".
func TestLoad(t *testing.T) {
	archives, err := filepath.Glob("testdata/load/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			loadArchive(t, path)
		})
	}
}

func loadArchive(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root := unpack(t, archive)
	o := options(root, string(archive.Comment))
	project, err := Load(o)
	want := outcome(root, project, err)

	for _, f := range archive.Files {
		if f.Name == want.Name && bytes.Equal(f.Data, want.Data) {
			playBack(t, root, project, want)
			return
		}
	}
	if *update {
		archive.Files = append(inputs(archive), want)
		if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s is now:\n%s", want.Name, want.Data)
}

// playBack loads a project again from its own sources.
func playBack(t *testing.T, root string, project *Project, want txtar.File) {
	t.Helper()
	if project == nil {
		return
	}
	again, err := Load(Options{Dir: project.Dir, File: project.File, Read: Recorded(project.Sources)})
	if got := outcome(root, again, err); !bytes.Equal(got.Data, want.Data) {
		t.Errorf("played back it is:\n%s", got.Data)
	}
}

func inputs(a *txtar.Archive) []txtar.File {
	var files []txtar.File
	for _, f := range a.Files {
		if f.Name != "result" && f.Name != "problems" {
			files = append(files, f)
		}
	}
	return files
}

// unpack writes the inputs into a directory named shop.
func unpack(t *testing.T, a *txtar.Archive) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(root, "shop")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range inputs(a) {
		path := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func options(root, comment string) Options {
	o := Options{Dir: root}
	for line := range strings.Lines(comment) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "file":
			o.File = value
		case "dir":
			o.Dir = filepath.Join(root, value)
		}
	}
	return o
}

func outcome(root string, p *Project, err error) txtar.File {
	if err != nil {
		return txtar.File{Name: "problems", Data: hideRoot(root, problemLines(err))}
	}
	var b strings.Builder
	for _, v := range Show(p, true) {
		fmt.Fprintf(&b, "%v  # %s\n", v, v.Origin)
	}
	files := p.EnvFiles
	for _, s := range p.Services {
		for _, d := range s.DependsOn {
			fmt.Fprintf(&b, "%s needs %s %s\n", s.Name, d.Service, d.Condition)
		}
		files = append(files, s.EnvFiles...)
	}
	for _, f := range files {
		for _, v := range f.Vars {
			fmt.Fprintf(&b, "%v: %s=%q\n", v.Pos, v.Name, v.Value)
		}
	}
	return txtar.File{Name: "result", Data: hideRoot(root, b.String())}
}

func hideRoot(root, text string) []byte {
	return []byte(strings.ReplaceAll(text, root, "$DIR"))
}

func problemLines(err error) string {
	var all *Error
	if !errors.As(err, &all) {
		return "not an *Error: " + err.Error() + "\n"
	}
	var b strings.Builder
	for _, p := range all.Problems {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}
