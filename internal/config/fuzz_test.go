package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// onlyProblems fails unless err is nil or an *Error that says something.
func onlyProblems(t *testing.T, err error) {
	t.Helper()
	var all *Error
	if err == nil {
		return
	}
	if !errors.As(err, &all) || len(all.Problems) == 0 || all.Error() == "" {
		t.Errorf("not an *Error with problems: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	archives, err := filepath.Glob("testdata/load/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if strings.HasSuffix(file.Name, ".toml") {
				f.Add(string(file.Data), "")
			}
		}
	}
	f.Add("[services.a]\ncommand = 'a'\n", "[services.a]\nenv.A = 1\n")
	f.Fuzz(func(t *testing.T, text, over string) {
		p, err := Load(Options{Dir: "/p", File: FileName, Read: Recorded([]Source{
			{"/p/locald.toml", []byte(text)}, {"/p/locald.local.toml", []byte(over)},
		})})
		onlyProblems(t, err)
		if err == nil {
			Show(p, false)
			for _, s := range p.Services {
				if changes := Changes(s, s); changes != nil {
					t.Errorf("%s differs from itself: %v", s.Name, changes)
				}
			}
		}
	})
}

func FuzzProcfile(f *testing.F) {
	f.Add("web: npm start\n# comment\nworker: x\r\nrelease: y\n")
	f.Add("a:\n: b\nA: c\na: d\n--: e\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Load(Options{Dir: "/p", File: procfileName, Read: Recorded([]Source{{"/p/Procfile", []byte(text)}})})
		onlyProblems(t, err)
		if err == nil && len(p.Services) == 0 {
			t.Error("no services and no problem")
		}
	})
}

func FuzzEnvFile(f *testing.F) {
	f.Add("A=1\nexport B='x'\nC=\"a\\n\nb\" # c\n")
	f.Add("A\n=\nA=\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Load(Options{Dir: "/p", File: FileName, Read: Recorded([]Source{
			{"/p/locald.toml", []byte("[services.a]\ncommand = 'a'\n")}, {"/p/.env", []byte(text)},
		})})
		onlyProblems(t, err)
		if err != nil {
			return
		}
		for _, v := range p.EnvFiles[0].Vars {
			if v.Pos.Line > strings.Count(text, "\n")+1 || strings.ContainsAny(v.Name, "=\x00") {
				t.Errorf("%q at %v", v.Name, v.Pos)
			}
		}
	})
}

func BenchmarkLoad200Services(b *testing.B) {
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "[services.s%d]\ncommand = \"run %d\"\nport = %d\nenv = { LOG = \"debug\", OTHER = \"${services.s%d.url}\" }\nhealth = { http = \"/healthz\", interval = \"1s\" }\n", i, i, 3000+i, max(i-1, 0))
	}
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(Options{Dir: dir}); err != nil {
			b.Fatal(err)
		}
	}
}
