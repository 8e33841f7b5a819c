package manual

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/locald/locald/internal/config"
)

// schema is the parts of a JSON Schema that config.Schema uses.
type schema struct {
	Type        string             `json:"type"`
	Description string             `json:"description"`
	Default     any                `json:"default"`
	Const       any                `json:"const"`
	Enum        []string           `json:"enum"`
	Minimum     *float64           `json:"minimum"`
	Maximum     *float64           `json:"maximum"`
	Above       *float64           `json:"exclusiveMinimum"`
	Items       *schema            `json:"items"`
	AnyOf       []schema           `json:"anyOf"`
	Properties  map[string]*schema `json:"properties"`

	AllOf []struct {
		If, Then struct{ Properties map[string]json.RawMessage }
	} `json:"allOf"`
	Additional json.RawMessage `json:"additionalProperties"`
}

// words are what a value may be.
func (s schema) words() string {
	switch {
	case len(s.AnyOf) > 0:
		var all []string
		for _, one := range s.AnyOf {
			all = append(all, one.words())
		}
		return strings.Join(all, ", or ")
	case s.Const != nil:
		return fmt.Sprint(s.Const)
	case len(s.Enum) > 0:
		return `"` + strings.Join(s.Enum, `", "`) + `"`
	case s.Type == "array":
		return "list (each: " + s.Items.words() + ")"
	case s.Type == "object":
		return "table"
	case s.Minimum != nil && s.Maximum != nil && *s.Maximum <= 65535:
		return fmt.Sprintf("%s %v to %v", s.Type, *s.Minimum, *s.Maximum)
	case s.Above != nil:
		return fmt.Sprintf("%s above %v", s.Type, *s.Above)
	}
	return s.Type
}

func parsed(t *testing.T) (project, service, health, build *schema) {
	t.Helper()
	var root schema
	if err := json.Unmarshal(config.Schema(), &root); err != nil {
		t.Fatal(err)
	}
	project, service = root.Properties["project"], new(schema)
	if err := json.Unmarshal(root.Properties["services"].Additional, service); err != nil {
		t.Fatal(err)
	}
	table := func(key string) *schema {
		for _, form := range service.Properties[key].AnyOf {
			if form.Type == "object" {
				return &form
			}
		}
		return nil
	}
	health, build = table("health"), table("build")
	if health == nil || build == nil || len(service.Properties) < 20 {
		t.Fatal("the schema has another shape")
	}
	return project, service, health, build
}

// defaults are what is filled in for the keys of a project without any.
func defaults(t *testing.T) map[string]any {
	t.Helper()
	p := load(t, "[services.a]\ncommand = \"a\"\n[services.b]\ntype = \"postgres\"\n[services.c]\nbuild = {}\n")
	s, db, built := p.Service("a"), p.Service("b"), p.Service("c")
	return map[string]any{
		"project.engine": p.Engine, "project.inherit_env": p.Inherit.All,
		"restart": s.Restart, "runtime": db.Postgres.Runtime,
		"health.interval": s.Health.Interval.String(), "health.timeout": s.Health.Timeout.String(),
		"build.context": ".", "build.dockerfile": filepath.Base(built.Build.Dockerfile),
		"health.retries": s.Health.Retries, "health.start_period": s.Health.StartPeriod.String(),
	}
}

// load reads a project of one file; every other file that it names is empty.
func load(t *testing.T, file string) *config.Project {
	t.Helper()
	p, err := config.Load(config.Options{Dir: "/shop", Read: func(path string) ([]byte, error) {
		switch name := filepath.Base(path); {
		case path == "/shop/locald.toml":
			return []byte(file), nil
		case strings.HasPrefix(name, ".env."):
			return nil, nil
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}})
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, file)
	}
	return p
}

// keys is a table of keys; typesOf may be nil.
func keys(s *schema, prefix string, known map[string]any, typesOf func(key string) string) string {
	var b strings.Builder
	head := []string{"key", "value", "default", "what it says"}
	if typesOf != nil {
		head = slices.Insert(head, 3, "types")
	}
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
		one := s.Properties[key]
		value := known[prefix+key]
		if one.Default != nil {
			value = one.Default
		}
		standard := ""
		if value != nil {
			text, _ := json.Marshal(value)
			standard = "`" + string(text) + "`"
		}
		row := []string{"`" + key + "`", one.words(), standard, one.Description}
		if typesOf != nil {
			row = slices.Insert(row, 3, typesOf(key))
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

// TestConfiguration writes the tables of keys.
func TestConfiguration(t *testing.T) {
	project, service, health, build := parsed(t)
	known := defaults(t)
	types := func(key string) string {
		var have []string
		for _, rule := range service.AllOf {
			var of struct{ Const string }
			if err := json.Unmarshal(rule.If.Properties["type"], &of); err != nil {
				t.Fatal(err)
			}
			if _, forbidden := rule.Then.Properties[key]; !forbidden {
				have = append(have, of.Const)
			}
		}
		if len(have) == len(service.AllOf) {
			return "all"
		}
		return strings.Join(have, ", ")
	}
	generated(t, "configuration.md", "project keys", keys(project, "project.", known, nil))
	generated(t, "configuration.md", "service keys", keys(service, "", known, types))
	generated(t, "configuration.md", "health keys", keys(health, "health.", known, nil))
	generated(t, "configuration.md", "build keys", keys(build, "build.", known, nil))
}

// TestExamples: every example of the manual is a valid locald.toml, and
// together they show every key.
func TestExamples(t *testing.T) {
	var all strings.Builder
	text := page(t, "configuration.md")
	count := 0
	for {
		_, rest, found := strings.Cut(text, "```toml\n")
		if !found {
			break
		}
		example, after, _ := strings.Cut(rest, "```")
		load(t, example)
		all.WriteString(example)
		text = after
		count++
	}
	if count < 5 {
		t.Fatalf("found %d examples", count)
	}
	project, service, health, build := parsed(t)
	for _, s := range []*schema{project, service, health, build} {
		for key := range s.Properties {
			if !strings.Contains(all.String(), key+" = ") {
				t.Errorf("no example has %s", key)
			}
		}
	}
}
