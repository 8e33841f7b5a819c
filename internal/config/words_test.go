package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{
		"500ms": 500 * time.Millisecond, "10s": 10 * time.Second, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute,
		"10": 10 * time.Second, "0.5": 500 * time.Millisecond, "0": 0, " 2s ": 2 * time.Second,
	} {
		if got, err := Duration(s); got != want || err != nil {
			t.Errorf("%q: got %v %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "10 seconds", "-1s", "-1", "1e300", "NaN", "inf", "s"} {
		if got, err := Duration(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, got)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{"512m": 512 << 20, "1GiB": 1 << 30, "1.5g": 3 << 29, "100": 100, "2 KB": 2048} {
		if got, err := size(s); got != want || err != nil {
			t.Errorf("%q: got %v %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "m", "-1g", "0", "1x", "1e30g", "nan"} {
		if got, err := size(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, got)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	names := []string{"web", "worker", "db", "migrate"}
	for word, want := range map[string]string{"wbe": "web", "we": "web", "Web": "web", "wroker": "worker", "bd": "db", "migrates": "migrate", "x": "", "postgres": ""} {
		if got := Nearest(word, names); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"TOKEN", "github_token", "AWS_SECRET_ACCESS_KEY", "Db_Password", "PASSWD", "credentials", "SSH_PRIVATE_KEY", "STRIPE_API_KEY"} {
		if !Secret(name, "x") {
			t.Errorf("%s is a secret", name)
		}
	}
	for _, name := range []string{"LOG", "KEY", "PATH", "PASS", "PRIVATE"} {
		if Secret(name, "x") {
			t.Errorf("%s is no secret", name)
		}
	}
	for url, want := range map[string]string{
		"postgresql://u:p@h:5432/db":    "postgresql://u:***@h:5432/db",
		"redis://:p@h":                  "redis://:***@h",
		"a://u:p@h,b://v:q@i":           "a://u:***@h,b://v:***@i",
		"amqp://u:p@ss@h/x":             "amqp://u:***@h/x",
		"http://localhost:3000/@vite/x": "http://localhost:3000/@vite/x",
		"http://u@h/":                   "http://u@h/",
		"curl http://u:p@h; echo a@b":   "curl http://u:***@h; echo a@b",
		"user:pass@host":                "user:pass@host",
	} {
		if got := MaskURL(url); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
		if Secret("URL", url) != (url != want) {
			t.Errorf("%s: a URL with a password is a secret, others are not", url)
		}
	}
}

func TestImageNames(t *testing.T) {
	t.Parallel()
	for image, want := range map[string]bool{
		"postgres": true, "postgres:16-alpine": true, "docker.io/library/postgres": true, "localhost:5000/x/postgis:1": true,
		"pgvector/pgvector:pg16": true, "timescale/timescaledb-ha:pg16": true, "postgres@sha256:abc": true,
		"postgrest/postgrest": false, "redis": false, "postgres/x": false, "": false,
	} {
		if got := IsPostgresImage(image); got != want {
			t.Errorf("%s: got %v", image, got)
		}
	}
}

func TestVariablePrefix(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"web": "WEB", "my-db": "MY_DB", "2fa": "_2FA"} {
		if got := VariablePrefix(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestErrorSaysHowManyMore(t *testing.T) {
	t.Parallel()
	err := &Error{Problems: []Problem{{Pos: Pos{"f", 1, 2}, Message: "m", Hint: "h"}, {}, {}}}
	if want := "f:1:2: m (and 2 more)"; err.Error() != want {
		t.Errorf("got %q, want %q", err.Error(), want)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	const before = `
[services.web]
command = "npm start"
port = 3000
env = { LOG = "info", GONE = "1", TOKEN = "hunter2" }
env_file = "web.env"
depends_on = ["a", "b"]
[services.a]
command = "a"
[services.b]
command = "b"
[services.i]
image = "i:1"
labels = { x = "1" }
[services.db]
type = "postgres"
`
	edited := func(old, new string) string {
		t.Helper()
		if !strings.Contains(before, old) {
			t.Fatalf("there is no %s", old)
		}
		return strings.Replace(before, old, new, 1)
	}
	cases := map[string]struct {
		service, after string
		want           []string
	}{
		"nothing":     {"web", before, nil},
		"comments":    {"web", "# hello\n" + before, nil},
		"command":     {"web", edited("npm start", "npm run dev"), []string{"command changed"}},
		"as a list":   {"web", edited(`"npm start"`, `["npm", "start"]`), []string{"command changed"}},
		"env":         {"web", edited(`"info", GONE = "1", TOKEN = "hunter2"`, `"debug", TOKEN = "hunter3", NEW = 1`), []string{"env GONE removed", "env LOG changed", "env NEW added", "env TOKEN changed"}},
		"order":       {"web", edited(`["a", "b"]`, `["b", "a"]`), []string{"depends_on changed"}},
		"condition":   {"web", edited(`"b"]`, `{ service = "b", condition = "started" }]`), nil},
		"policy":      {"web", edited("port = 3000", "port = 3000\nrestart = \"no\"\nbackoff = 1\nmax_restarts = 1\nstop_timeout = 1\nprofiles = [\"x\"]"), nil},
		"port":        {"web", edited("3000", "3001"), []string{"port changed"}},
		"health":      {"web", edited("port = 3000", "port = 3000\nhealth = \"none\""), []string{"health changed"}},
		"image":       {"i", edited("i:1", "i:2"), []string{"image changed"}},
		"label":       {"i", edited(`x = "1"`, `x = "2"`), []string{"labels changed"}},
		"type":        {"i", edited(`"i:1"`, `"i:1"`+"\ntype = \"worker\""), []string{"type changed"}},
		"version":     {"db", before + "version = \"16\"\n", []string{"version changed"}},
		"another one": {"a", edited("npm start", "x"), nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, changed := recorded(t, before, "A=1\n").Service(c.service), recorded(t, c.after, "A=1\n").Service(c.service)
			if got := Changes(old, changed); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("env_file", func(t *testing.T) {
		t.Parallel()
		old, changed := recorded(t, before, "A=1\nA=2\nB=1\n"), recorded(t, before, "A=2\nB=2\n")
		if got, want := Changes(old.Service("web"), changed.Service("web")), []string{"web.env: B changed"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestProjectChanges(t *testing.T) {
	t.Parallel()
	old := recorded(t, "[project]\nenv_file = \"web.env\"\n[services.a]\ncommand = \"a\"\n", "A=1\n")
	changed := recorded(t, "[project]\nname = \"q\"\nenv_file = \"web.env\"\ninherit_env = [\"PATH\"]\n[services.a]\ncommand = \"a\"\n", "")
	want := []string{"project name changed", "inherit_env changed", "web.env: A removed"}
	if got := ProjectChanges(old, changed); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := ProjectChanges(old, old); got != nil {
		t.Errorf("got %q, want nothing", got)
	}
}

// recorded loads a project of a locald.toml and a web.env that are on no disk.
func recorded(t *testing.T, text, variables string) *Project {
	t.Helper()
	p, err := Load(Options{Dir: "/p", File: FileName, Read: Recorded([]Source{
		{"/p/locald.toml", []byte(text)}, {"/p/web.env", []byte(variables)},
	})})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoadFailsWithProblemsOnly(t *testing.T) {
	t.Parallel()
	_, err := Load(Options{Dir: "/p", Read: func(string) ([]byte, error) { return nil, errors.New("disk on fire") }})
	var all *Error
	if !errors.As(err, &all) || all.Problems[0].Message != "/p/locald.toml cannot be read: disk on fire" {
		t.Errorf("got %v", err)
	}
}
