package manual

import (
	"strings"
	"testing"

	"github.com/locald/locald/internal/env"
)

// TestEnvironment: every variable that locald adds is mentioned.
func TestEnvironment(t *testing.T) {
	p := load(t, `
[services.db]
type = "postgres"
[services.api]
command = "api"
ports = { metrics = 9100 }
[services.web]
command = "web"
depends_on = ["db", "api"]
`)
	vars, err := env.Resolve(env.Input{
		Project: p, Service: p.Service("web"), Run: 1, Port: 3000, Notify: "/run/notify",
		Endpoint: func(name string) (env.Endpoint, bool) {
			e := env.Endpoint{Host: "127.0.0.1", Port: 4000, Ports: map[string]int{"metrics": 9100}}
			e.Postgres = name == "db"
			return e, true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range vars {
		name := strings.Replace(v.Name, "METRICS", "<PORT>", 1)
		for _, service := range []string{"DB", "API"} {
			if rest, ok := strings.CutPrefix(name, service+"_"); ok {
				name = "<NAME>_" + rest
			}
		}
		names = append(names, name)
	}
	if len(names) < 15 {
		t.Fatalf("only %v", names)
	}
	mentions(t, "environment.md", names...)
}
