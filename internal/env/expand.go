package env

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/locald/locald/internal/config"
)

// Expand replaces the references in s, which stands at a key of in.Service:
// ${services.NAME.…} by the address that the service reaches NAME at,
// ${env.NAME} by the variable that it has from locald, its files or the client
// (never from its own env), ${project.name|dir}. "$${services…" is literal,
// every other "$" is left alone. An error is a *config.Error at that position;
// it holds no value.
func Expand(in Input, s string, at config.Pos) (string, error) {
	value, problem := newResolver(in).expand(s, at, "")
	if problem != nil {
		return "", &config.Error{Problems: []config.Problem{*problem}}
	}
	return value, nil
}

// Expanded is a copy of in.Service whose command, image, build, volumes and
// health have their references replaced; its env has not, see Resolve. Its error is a
// *config.Error with all references that cannot be resolved.
func Expanded(in Input) (*config.Service, error) {
	e := &expansion{resolver: newResolver(in)}
	s := *in.Service
	s.Command = e.command("command", s.Command)
	s.Image = e.text("image", s.Image)
	s.Health.HTTP = e.text("health.http", s.Health.HTTP)
	s.Health.Log = e.text("health.log", s.Health.Log)
	s.Health.Command = e.command("health.command", s.Health.Command)
	s.Build = e.build(s.Build)
	s.Volumes = slices.Clone(s.Volumes)
	for i, v := range s.Volumes {
		s.Volumes[i] = e.volume(v)
	}
	if e.wrong == nil && s.Image == "" && in.Service.Image != "" {
		e.blame("image", "comes to nothing")
	}
	if e.wrong == nil && strings.TrimSpace(s.Command.Shell) == "" && in.Service.Command.Shell != "" {
		e.blame("command", "comes to nothing")
	}
	if e.wrong != nil {
		return nil, &config.Error{Problems: e.wrong}
	}
	return &s, nil
}

// expansion collects what is wrong on the way.
type expansion struct {
	*resolver
	wrong []config.Problem
}

func (e *expansion) text(key, s string) string {
	value, problem := e.expand(s, e.at(key), key)
	if problem != nil {
		e.wrong = append(e.wrong, *problem)
	}
	return value
}

func (e *expansion) build(b *config.Build) *config.Build {
	if b == nil {
		return nil
	}
	expanded := *b
	expanded.Args = slices.Clone(b.Args)
	for i, v := range b.Args {
		expanded.Args[i].Value = e.text("build.args."+v.Name, v.Value)
	}
	return &expanded
}

func (e *expansion) blame(key, why string) {
	e.wrong = append(e.wrong, config.Problem{
		Pos: e.at(key), Service: e.Service.Name, Message: "services." + e.Service.Name + "." + key + ": " + why,
	})
}

// at is where a key is written, or what it is below.
func (e *expansion) at(key string) config.Pos {
	if pos, ok := e.Service.At[key]; ok {
		return pos
	}
	top, _, _ := strings.Cut(key, ".")
	return e.Service.At[top]
}

func (e *expansion) command(key string, c config.Command) config.Command {
	c.Shell = e.text(key, c.Shell)
	if c.Argv != nil {
		c.Argv = slices.Clone(c.Argv)
		for i, word := range c.Argv {
			c.Argv[i] = e.text(key, word)
		}
	}
	return c
}

// volume expands a volume, and judges a source that was not known before.
func (e *expansion) volume(v config.Volume) config.Volume {
	if !config.HasReference(v.Source) && !config.HasReference(v.Target) {
		return v
	}
	before := len(e.wrong)
	source, target := e.text("volumes", v.Source), e.text("volumes", v.Target)
	judged, err := config.NewVolume(e.Project.Dir, source, target, v.ReadOnly)
	if err != nil && len(e.wrong) == before {
		e.blame("volumes", fmt.Sprintf("what %s comes to %v", v, err))
	}
	return judged
}

// expand replaces the references in s. key is the service's key that s stands
// at, if it is known.
func (r *resolver) expand(s string, at config.Pos, key string) (string, *config.Problem) {
	if !strings.Contains(s, "${") {
		return s, nil
	}
	var b strings.Builder
	for _, p := range config.Split(s) {
		value, why, hint := p.Literal, p.Wrong, ""
		if p.Of != "" && p.Wrong == "" {
			value, why, hint = r.lookup(p)
		}
		if why != "" {
			place := "services." + r.Service.Name
			if key != "" {
				place += "." + key
			}
			return "", &config.Problem{Pos: at, Service: r.Service.Name, Message: place + ": " + shortened(p) + " " + why, Hint: hint}
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// shortened is a reference without its default, which may be a secret.
func shortened(p config.Part) string {
	if p.Of == config.OfEnv {
		return "${env." + p.Name + "}"
	}
	return p.Written
}

// lookup is the value of one reference, or why there is none.
func (r *resolver) lookup(p config.Part) (value, why, hint string) {
	switch p.Of {
	case config.OfProject:
		return r.projectField(p.Field)
	case config.OfEnv:
		return r.variable(p)
	}
	e, ok := r.endpoint(p.Service)
	if !ok {
		return "", "has no value: " + p.Service + " has no address", ""
	}
	value = field(e, p)
	if value == "" && p.Field != "password" {
		return "", "has no value: " + p.Service + " has no " + strings.TrimSuffix(p.Field+" "+p.Port, " "), ""
	}
	return value, "", ""
}

func (r *resolver) projectField(field string) (value, why, hint string) {
	switch field {
	case "name":
		return r.Project.Name, "", ""
	case "dir":
		return r.Project.Dir, "", ""
	}
	return "", "is not a field of the project", "its fields are name, dir"
}

func (r *resolver) variable(p config.Part) (value, why, hint string) {
	r.unwritten()
	value, known := r.vars[p.Name].Value, false
	if _, known = r.vars[p.Name]; !known {
		value, known = r.client(p.Name)
	}
	switch {
	case p.Fixed && value == "":
		return p.Default, "", ""
	case !known:
		return "", "is not set", "${env." + p.Name + ":-default}"
	}
	return value, "", ""
}

// field is what a reference asks of an endpoint; "" is nothing.
func field(e Endpoint, p config.Part) string {
	port := 0
	switch p.Field {
	case "url":
		if e.Port != 0 {
			return e.URL()
		}
	case "host":
		return e.Host
	case "port":
		port = e.Port
	case "ports":
		port = e.Ports[p.Port]
	case "user":
		return e.User
	case "password":
		return e.Password
	case "database":
		return e.Database
	}
	if port == 0 {
		return ""
	}
	return strconv.Itoa(port)
}
