package postgres

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// install makes programs that say that they are of version.
func install(t *testing.T, dir, version string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + ".3 (Somewhere)'\n"
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInstallsAreFoundNewestFirst(t *testing.T) {
	root := t.TempDir()
	at := func(dir string) string { return filepath.Join(root, dir) }
	install(t, at("usr/lib/postgresql/9.6/bin"), "9")
	install(t, at("usr/lib/postgresql/9/bin"), "9")
	install(t, at("usr/lib/postgresql/15/bin"), "15")
	install(t, at("usr/pgsql-16/bin"), "16")
	install(t, at("opt/homebrew/Cellar/postgresql@17/17.2/bin"), "17")
	install(t, at("home/ana/pg/bin"), "14")
	if err := os.MkdirAll(at("usr/lib/postgresql/18/bin"), 0o755); err != nil { // a client alone
		t.Fatal(err)
	}
	for to, from := range map[string]string{
		"opt/homebrew/opt/postgresql@17": "opt/homebrew/Cellar/postgresql@17/17.2",
		"usr/local/bin/postgres":         "usr/lib/postgresql/15/bin/postgres",
	} {
		if err := os.MkdirAll(filepath.Dir(at(to)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(at(from), at(to)); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"PATH": at("usr/local/bin") + ":relative:" + at("none") + ":" + at("home/ana/pg/bin")}
	getenv := func(key string) string { return env[key] }
	want := []Install{
		{"17", at("opt/homebrew/Cellar/postgresql@17/17.2/bin")},
		{"16", at("usr/pgsql-16/bin")},
		{"15", at("usr/lib/postgresql/15/bin")},
		{"14", at("home/ana/pg/bin")},
	}
	if got := installs(getenv, root); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}

	env[BinVariable] = at("home/ana/pg/bin")
	if got := installs(getenv, root); !slices.Equal(got, want[3:]) {
		t.Errorf("with %s got %v, want that one alone", BinVariable, got)
	}
	env[BinVariable] = at("none")
	if got := installs(getenv, root); len(got) != 0 {
		t.Errorf("with %s of an empty place got %v, want none", BinVariable, got)
	}
}
