package config

import "strings"

// What a reference can name.
const (
	OfService = "services" // ${services.NAME.FIELD}, ${services.NAME.ports.PORT}
	OfEnv     = "env"      // ${env.NAME}, ${env.NAME:-default}
	OfProject = "project"  // ${project.name}, ${project.dir}
)

// Part is one part of a string that may have references in it.
type Part struct {
	Literal string // when Of is empty

	Of      string // OfService, OfEnv or OfProject
	Service string // of OfService
	Field   string // of OfService and OfProject; "ports" with Port
	Port    string
	Name    string // of OfEnv
	Default string // of OfEnv
	Fixed   bool   // OfEnv: a default is written
	Written string // the reference as it is written
	Wrong   string // why it cannot be understood, or ""
}

// serviceFields are what can be asked of a service.
var serviceFields = []string{"url", "host", "port", "ports", "user", "password", "database"}

// projectFields are what can be asked of the project.
var projectFields = []string{"name", "dir"}

var referenceStarts = []string{"${" + OfService + ".", "${" + OfEnv + ".", "${" + OfProject + "."}

// referenceAt reports whether s begins like a reference.
func referenceAt(s string) bool {
	for _, start := range referenceStarts {
		if strings.HasPrefix(s, start) {
			return true
		}
	}
	return false
}

// HasReference reports whether s has a reference in it.
func HasReference(s string) bool {
	for _, p := range Split(s) {
		if p.Of != "" {
			return true
		}
	}
	return false
}

// Split takes s apart into literal text and references. "$${services…" is
// literal and loses its first "$"; so are "$${env…" and "$${project…". Every
// other "$" is text.
func Split(s string) []Part {
	var parts []Part
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			parts = append(parts, Part{Literal: text.String()})
			text.Reset()
		}
	}
	for s != "" {
		dollar := strings.IndexByte(s, '$')
		if dollar < 0 {
			text.WriteString(s)
			break
		}
		text.WriteString(s[:dollar])
		s = s[dollar:]
		switch {
		case strings.HasPrefix(s, "$$") && referenceAt(s[1:]):
			text.WriteString("${")
			s = s[len("$${"):]
		case referenceAt(s):
			flush()
			p := reference(s)
			parts = append(parts, p)
			s = s[len(p.Written):]
		default:
			text.WriteByte('$')
			s = s[1:]
		}
	}
	flush()
	return parts
}

// reference reads the reference that s begins with.
func reference(s string) Part {
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return Part{Of: kindOfReference(s), Written: s, Wrong: "has no closing }"}
	}
	p := Part{Of: kindOfReference(s), Written: s[:end+1]}
	inside := s[len("${")+len(p.Of)+len(".") : end]
	switch p.Of {
	case OfEnv:
		p.Name, p.Default, p.Fixed = strings.Cut(inside, ":-")
		if !variableName.MatchString(p.Name) {
			p.Wrong = "does not name a variable"
		}
	case OfProject:
		p.Field = inside
	case OfService:
		p.Service, p.Field, _ = strings.Cut(inside, ".")
		p.Field, p.Port, _ = strings.Cut(p.Field, ".")
		switch {
		case p.Service == "" || p.Field == "":
			p.Wrong = "names no field"
		case p.Field == "ports" && p.Port == "":
			p.Wrong = "names none of the ports"
		case p.Field != "ports" && p.Port != "":
			p.Wrong = "goes too deep: " + p.Field + " has no fields"
		}
	}
	return p
}

func kindOfReference(s string) string {
	kind, _, _ := strings.Cut(s[len("${"):], ".")
	return kind
}
