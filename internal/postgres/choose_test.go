package postgres

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locald/locald/runtime"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Every combination of what is asked for, found and installed; the golden file
// is the table of decisions.
func TestChoose(t *testing.T) {
	const dir = "/state/db"
	asked := []struct {
		words    string
		settings Settings
	}{
		{"auto", Settings{}},
		{"auto 15", Settings{Version: "15"}},
		{"auto 16.4", Settings{Version: "16.4"}},
		{"process", Settings{Runtime: "process"}},
		{"process 16", Settings{Runtime: "process", Version: "16"}},
		{"container", Settings{Runtime: "container"}},
		{"container 16", Settings{Runtime: "container", Version: "16"}},
		{"image", Settings{Image: "pgvector/pgvector:pg16"}},
		{"process image", Settings{Runtime: "process", Image: "pgvector/pgvector:pg16"}},
	}
	found := []struct {
		words string
		data  DataFound
	}{
		{"no data", DataFound{Dir: dir}},
		{"native 15", DataFound{Dir: dir, NativeMajor: "15"}},
		{"volume 15", DataFound{Dir: dir, Volume: true, VolumeMajor: "15"}},
		{"volume ?", DataFound{Dir: dir, Volume: true}},
		{"both 15", DataFound{Dir: dir, NativeMajor: "15", Volume: true, VolumeMajor: "15"}},
	}
	installed := []struct {
		words    string
		installs []Install
	}{
		{"nothing", nil},
		{"15", []Install{{"15", "/usr/lib/postgresql/15/bin"}}},
		{"17 15", []Install{{"17", "/usr/lib/postgresql/17/bin"}, {"15", "/usr/lib/postgresql/15/bin"}}},
		{"14", []Install{{"14", "/usr/lib/postgresql/14/bin"}}},
	}
	var table strings.Builder
	for _, s := range []Settings{{Version: "latest"}, {Version: "15", Image: "pgvector/pgvector:pg16"}} {
		choice, err := Choose(s, DataFound{Dir: dir}, installed[1].installs, true)
		fmt.Fprintf(&table, "version %s, image %s: %s\n", s.Version, s.Image, outcome(t, choice, err))
	}
	table.WriteByte('\n')
	for _, a := range asked {
		a.settings.Service = "db"
		for _, f := range found {
			for _, i := range installed {
				for _, engine := range []bool{false, true} {
					have := i.words + " installed"
					if engine {
						have += ", engine"
					}
					choice, err := Choose(a.settings, f.data, i.installs, engine)
					fmt.Fprintf(&table, "%-13s | %-9s | %-25s | %s\n", a.words, f.words, have, outcome(t, choice, err))
				}
			}
		}
		table.WriteByte('\n')
	}
	golden := filepath.Join("testdata", "choose.golden")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(golden, []byte(table.String()), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(table.String(), "\n"), strings.Split(string(want), "\n")
	for i, got := range gotLines {
		if i >= len(wantLines) || got != wantLines[i] {
			t.Errorf("line %d: got\n%s\nwant\n%s", i+1, got, wantLines[min(i, len(wantLines)-1)])
		}
	}
	if len(gotLines) != len(wantLines) {
		t.Errorf("got %d lines, want %d", len(gotLines), len(wantLines))
	}
}

func outcome(t *testing.T, c Choice, err error) string {
	if err == nil {
		if c.Native == (c.Image != "") || c.Native == (c.Install == Install{}) {
			t.Errorf("%+v is both or neither", c)
		}
		if c.Native {
			return "process: " + c.Why
		}
		return "container: " + c.Why
	}
	var f *runtime.Fault
	if !errors.As(err, &f) {
		t.Errorf("%v is not a fault", err)
		return err.Error()
	}
	if strings.Contains(f.Hint+f.Error(), "\n") || f.Hint == "" {
		t.Errorf("%q, %q is not one line each", f, f.Hint)
	}
	return fmt.Sprintf("%s: %v [%s]", f.Code, f, f.Hint)
}

func TestImageMajor(t *testing.T) {
	for image, want := range map[string]string{
		"postgres:16":                           "16",
		"postgres:16.4-alpine3.20":              "16",
		"docker.io/library/postgres:9.6":        "",
		"postgres":                              "",
		"postgres:latest":                       "",
		"postgres:17-bookworm@sha256:16abcdef":  "17",
		"pgvector/pgvector:pg16":                "16",
		"pgvector/pgvector:0.8.0-pg17-trixie":   "17",
		"postgis/postgis:15-3.4":                "15",
		"timescale/timescaledb:latest-pg16":     "16",
		"timescale/timescaledb:2.17.2-pg14-oss": "14",
		"localhost:5000/postgres:15":            "15",
		"localhost:5000/postgres":               "",
	} {
		if got := ImageMajor(image); got != want {
			t.Errorf("%s: got %q, want %q", image, got, want)
		}
	}
}
