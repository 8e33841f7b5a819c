package config

import (
	"regexp"
	"strings"
	"sync"
)

var procfileLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([A-Za-z0-9_-]+):[ \t]*(.*)$`)
})

// parseProcfile reads lines of "name: command" into the tree that a
// locald.toml with the same services would make: web an exec, release a task,
// the rest workers. Names are mapped to those that services can have.
func parseProcfile(file string, content []byte, found *problems) *value {
	root := &value{kind: tableKind, pos: Pos{File: file, Line: 1, Column: 1}}
	services := &value{kind: tableKind, pos: root.pos}
	text := strings.TrimPrefix(string(content), "\ufeff")
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		at := Pos{File: file, Line: i + 1, Column: 1}
		if line == "" || line[0] == '#' {
			continue
		}
		match := procfileLine().FindStringSubmatch(line)
		if match == nil || match[2] == "" {
			found.add(at, "web: npm start", "expected a line like name: command")
			continue
		}
		name := fitName(match[1])
		if name == "" {
			found.add(at, "", "%s: a name needs a letter or a digit", quote(match[1]))
			continue
		}
		if first := services.lookup(name); first != nil {
			found.add(at, "", "service %s is there twice, first on line %d", name, first.pos.Line)
			continue
		}
		service := &value{kind: tableKind, pos: at, made: byHeader}
		service.add(entry{"type", at, &value{kind: stringKind, pos: at, text: procfileType(name)}})
		service.add(entry{"command", at, &value{kind: stringKind, pos: at, text: match[2]}})
		services.add(entry{name, at, service})
	}
	root.add(entry{"services", root.pos, services})
	return root
}

func procfileType(name string) string {
	switch name {
	case "web":
		return TypeExec
	case "release":
		return TypeTask
	}
	return TypeWorker
}

// fitName makes a name that a project or service can have of s, "" when
// nothing of it fits.
func fitName(s string) string {
	fit := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, s)
	return strings.TrimRight(strings.TrimLeft(fit, "-_"), "-")
}
