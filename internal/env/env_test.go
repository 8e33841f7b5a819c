package env_test

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

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/env"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata")

// client is the environment of the client in every test.
var client = []string{
	"PATH=/bin", "HOME=/home/ana", "API_KEY=k3y", "PORT=1", "LOCALD_SANDBOX_ACTIVE=1", "NOT A VARIABLE", "EMPTY=", "PGHOST=elsewhere", "TWICE=1", "TWICE=2",
}

// load makes a project of the files of an archive, which are on no disk.
func load(t *testing.T, files []txtar.File) *config.Project {
	t.Helper()
	var sources []config.Source
	for _, f := range files {
		sources = append(sources, config.Source{Path: "/shop/" + f.Name, Content: f.Data})
	}
	p, err := config.Load(config.Options{Dir: "/shop", File: config.FileName, Read: config.Recorded(sources)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// endpoints is what a daemon would say: written ports, or 40000 and up;
// containers reach each other by name.
func endpoints(p *config.Project, container bool) func(string) (env.Endpoint, bool) {
	return func(name string) (env.Endpoint, bool) {
		for i, s := range p.Services {
			if s.Name != name || !s.HasPort() && len(s.Ports) == 0 {
				continue
			}
			e := env.Endpoint{Scheme: env.Scheme(s), Host: "127.0.0.1", Port: s.Port, Ports: s.Ports, Postgres: s.IsPostgres()}
			if s.HasPort() && (e.Port == 0 || s.Contained() && !container) {
				e.Port = 40000 + i
			}
			if container {
				e.Host = name
			}
			if s.Postgres != nil {
				e.User, e.Password, e.Database = s.Postgres.User, "p@ss w/rd", s.Postgres.Database
			} else if e.Postgres {
				e.User, e.Password, e.Database = env.PostgresOf(values(s.Env))
			}
			return e, true
		}
		return env.Endpoint{}, false
	}
}

func values(vars []config.Var) map[string]string {
	m := map[string]string{}
	for _, v := range vars {
		m[v.Name] = v.Value
	}
	return m
}

// input is that of one run of a service.
func input(p *config.Project, s *config.Service) env.Input {
	in := env.Input{
		Project: p, Service: s, Run: 7, Container: s.Contained(), Inherited: client,
		Notify: "/run/notify", Endpoint: endpoints(p, s.Contained()),
	}
	if s.Type == config.TypeExec || s.Type == config.TypeContainer {
		in.Port = 3000
	}
	if s.Type == config.TypePostgres {
		in.Own, _ = in.Endpoint(s.Name)
	}
	return in
}

// TestEnvironments compares the whole environments of all services of each
// testdata/*.txtar, and what their references come to.
func TestEnvironments(t *testing.T) {
	t.Parallel()
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, path := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var files []txtar.File
			want := []byte{}
			for _, f := range archive.Files {
				if f.Name == "environments" {
					want = f.Data
				} else {
					files = append(files, f)
				}
			}
			got := environments(load(t, files))
			switch {
			case bytes.Equal(got, want):
			case *update:
				archive.Files = append(files, txtar.File{Name: "environments", Data: got})
				if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

func environments(p *config.Project) []byte {
	var b bytes.Buffer
	for _, s := range p.Services {
		fmt.Fprintf(&b, "[%s]\n", s.Name)
		in := input(p, s)
		vars, err := env.Resolve(in)
		list(&b, vars)
		problems(&b, err)
		expanded, err := env.Expanded(in)
		problems(&b, err)
		if err == nil {
			fmt.Fprintf(&b, "runs %q %q %q %q %v\n", expanded.Command.Args(), expanded.Image, expanded.Health.HTTP, expanded.Health.Command.Args(), expanded.Volumes)
		}
	}
	b.WriteString("[dependents]\n")
	list(&b, env.Dependents(p, endpoints(p, false)))
	return b.Bytes()
}

func list(b *bytes.Buffer, vars []env.Variable) {
	for _, v := range vars {
		fmt.Fprintf(b, "%s=%s  # %s", v.Name, v.Value, v.Origin)
		if v.Secret {
			b.WriteString(", secret")
		}
		if v.Hides != "" {
			b.WriteString(", hides " + v.Hides)
		}
		b.WriteByte('\n')
	}
}

func problems(b *bytes.Buffer, err error) {
	var all *config.Error
	switch {
	case err == nil:
	case errors.As(err, &all):
		for _, p := range all.Problems {
			fmt.Fprintln(b, p)
		}
	default:
		fmt.Fprintln(b, "not a *config.Error:", err)
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]env.Endpoint{
		"http://127.0.0.1:3000":                  {Host: "127.0.0.1", Port: 3000},
		"redis://cache:6379":                     {Scheme: "redis", Host: "cache", Port: 6379},
		"http://[::1]:80":                        {Host: "::1", Port: 80},
		"postgresql://u:p%40%2F%3A%20@h:5432/db": {Postgres: true, Host: "h", Port: 5432, User: "u", Password: "p@/: ", Database: "db"},
		"postgresql://u@h:5432/a%2Fb%20c":        {Postgres: true, Scheme: "http", Host: "h", Port: 5432, User: "u", Database: "a/b c"},
	} {
		if got := e.URL(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestScheme(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		service config.Service
		want    string
	}{
		{config.Service{}, "http"},
		{config.Service{Scheme: "https", Image: "redis"}, "https"},
		{config.Service{Image: "docker.io/library/redis:7"}, "redis"},
		{config.Service{Image: "mariadb:11"}, "mysql"},
		{config.Service{Image: "rabbitmq:4-management"}, "amqp"},
		{config.Service{Image: "mongo@sha256:abc"}, "mongodb"},
		{config.Service{Port: 6379}, "redis"},
		{config.Service{Image: "redis", Port: 3306}, "redis"},
		{config.Service{Type: config.TypePostgres}, "postgresql"},
		{config.Service{Type: config.TypeContainer, Image: "postgis/postgis", Port: 5432}, "postgresql"},
		{config.Service{Image: "redis-commander"}, "http"},
	} {
		if got := env.Scheme(&c.service); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.service, got, c.want)
		}
	}
}

func TestPostgresOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{nil, "postgres  postgres"},
		{map[string]string{"POSTGRES_USER": "ana", "POSTGRES_PASSWORD": "x"}, "ana x ana"},
		{map[string]string{"POSTGRES_DB": "shop"}, "postgres  shop"},
	} {
		user, password, database := env.PostgresOf(c.env)
		if got := user + " " + password + " " + database; got != c.want {
			t.Errorf("%v: got %q, want %q", c.env, got, c.want)
		}
	}
}

func TestExpandLeavesOtherDollarsAlone(t *testing.T) {
	t.Parallel()
	p := load(t, []txtar.File{{Name: "locald.toml", Data: []byte("[services.web]\ncommand = 'x'\n[services.api]\ncommand = 'y'\n")}})
	in := input(p, p.Services[0])
	for s, want := range map[string]string{
		"$HOME ${HOME} $$ $ $${HOME} ${service.x}":  "$HOME ${HOME} $$ $ $${HOME} ${service.x}",
		"$${services.api.url} $${env.X}":            "${services.api.url} ${env.X}",
		"${services.api.url}":                       "http://127.0.0.1:40001",
		"${services.web.port}":                      "40000",
		"${env.HOME}${env.NONE:-/d}${env.EMPTY:-e}": "/home/ana/de",
		"${env.PORT} ${env.EMPTY}.":                 "3000 .",
		"${project.name} ${project.dir}":            "shop /shop",
		"ends with $":                               "ends with $",
	} {
		if got, err := env.Expand(in, s, config.Pos{}); got != want || err != nil {
			t.Errorf("%s: got %q %v, want %q", s, got, err, want)
		}
	}
	for s, want := range map[string]string{
		"${env.NONE}":              "locald.toml:2:1: services.web: ${env.NONE} is not set",
		"${services.gone.url}":     "locald.toml:2:1: services.web: ${services.gone.url} has no value: gone has no address",
		"${services.api.ports.x}":  "locald.toml:2:1: services.web: ${services.api.ports.x} has no value: api has no ports x",
		"${services.api.password}": "",
		"${project.x}":             "locald.toml:2:1: services.web: ${project.x} is not a field of the project",
		"${services.api.url":       "locald.toml:2:1: services.web: ${services.api.url has no closing }",
	} {
		_, err := env.Expand(in, s, config.Pos{File: "locald.toml", Line: 2, Column: 1})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", s, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"${services.api.url}", "$${env.X}", "${env.HOME:-${x}}", "${project.dir", "$", "${services..}", "${services.web.ports.}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := load(t, []txtar.File{{Name: "locald.toml", Data: []byte("[services.web]\ncommand = 'x'\n[services.api]\ncommand = 'y'\n")}})
		got, err := env.Expand(input(p, p.Services[0]), s, config.Pos{})
		if err == nil && !strings.Contains(s, "${") && got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}
