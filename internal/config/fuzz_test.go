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

// onlyProblems fails unless err is nil or an *Error that says something, at a
// place that is in one of the texts.
func onlyProblems(t *testing.T, err error, texts ...string) {
	t.Helper()
	var all *Error
	if err == nil {
		return
	}
	if !errors.As(err, &all) || len(all.Problems) == 0 || all.Error() == "" {
		t.Fatalf("not an *Error with problems: %v", err)
	}
	lines := 1
	for _, text := range texts {
		lines = max(lines, strings.Count(text, "\n")+1)
	}
	for _, p := range all.Problems {
		if p.Message == "" || p.Pos.Line < 0 || p.Pos.Line > lines || p.Pos.Column < 0 {
			t.Errorf("%+v, in %d lines", p, lines)
		}
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
		onlyProblems(t, err, text, over)
		if err == nil {
			Show(p, false)
			sound(t, p)
		}
	})
}

// sound fails for what no project that was accepted may be.
func sound(t *testing.T, p *Project) {
	t.Helper()
	names := map[string]bool{}
	for _, s := range p.Services {
		if changes := Changes(s, s); changes != nil {
			t.Errorf("%s differs from itself: %v", s.Name, changes)
		}
		if names[s.Name] || s.Name == "" || fitName(s.Name) != s.Name {
			t.Errorf("a service is named %q, of %v", s.Name, names)
		}
		names[s.Name] = true
	}
}

func FuzzProcfile(f *testing.F) {
	f.Add("web: npm start\n# comment\nworker: x\r\nrelease: y\n")
	f.Add("a:\n: b\nA: c\na: d\n--: e\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Load(Options{Dir: "/p", File: procfileName, Read: Recorded([]Source{{"/p/Procfile", []byte(text)}})})
		onlyProblems(t, err, text)
		if err != nil {
			return
		}
		sound(t, p)
		// Each line that is one names a service, with what stands behind it.
		meant := 0
		for line := range strings.SplitSeq(strings.TrimPrefix(text, "\ufeff"), "\n") {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				meant++
			}
		}
		if len(p.Services) == 0 || len(p.Services) != meant {
			t.Errorf("%d services and no problem, of %d lines", len(p.Services), meant)
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
		onlyProblems(t, err, text)
		if err != nil {
			return
		}
		for _, v := range p.EnvFiles[0].Vars {
			if v.Pos.Line > strings.Count(text, "\n")+1 || strings.ContainsAny(v.Name, "=\x00") {
				t.Errorf("%q at %v", v.Name, v.Pos)
			}
		}
		// What one reader of such files writes, this one reads.
		for _, v := range p.EnvFiles[0].Vars {
			if strings.ContainsAny(v.Value, "\r\x00") {
				continue
			}
			var found problems
			line := v.Name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(v.Value) + "\"\n"
			if again := parseEnvFile(".env", []byte(line), &found); len(again) != 1 || again[0].Name != v.Name || again[0].Value != v.Value {
				t.Errorf("%q is read as %+v, want %q", line, again, v.Value)
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
