package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// String is "file:line:column", without what is not known.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is one thing that is wrong with a configuration. Message does not
// repeat the position.
type Problem struct {
	Pos     Pos
	Service string // whose key it is, or ""
	Message string
	Hint    string // something to type or a fact, or ""
}

// String is the problem in one line, its hint in a second one.
func (p Problem) String() string {
	text := p.sentence()
	if p.Hint != "" {
		text += "\nhint: " + p.Hint
	}
	return text
}

// sentence is the message with its position, which a message about a file as a
// whole begins with already.
func (p Problem) sentence() string {
	if p.Pos.File == "" || p.Pos.Line == 0 && strings.HasPrefix(p.Message, p.Pos.File) {
		return p.Message
	}
	return p.Pos.String() + ": " + p.Message
}

// Error is all that is wrong with a configuration, in the order of the files.
// There is at least one problem.
type Error struct {
	Problems []Problem
}

// Error is the first problem with its position, and how many more there are.
func (e *Error) Error() string {
	if len(e.Problems) == 0 {
		return "configuration is invalid"
	}
	text := e.Problems[0].sentence()
	if more := len(e.Problems) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// blame is an *Error of one problem.
func blame(at Pos, hint, format string, args ...any) *Error {
	return &Error{Problems: []Problem{{Pos: at, Message: fmt.Sprintf(format, args...), Hint: hint}}}
}

// problems collects what is wrong.
type problems struct {
	found []Problem
}

func (p *problems) add(at Pos, hint, format string, args ...any) {
	p.found = append(p.found, Problem{Pos: at, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// addTo is add for a key of a service.
func (p *problems) addTo(service string, at Pos, hint, format string, args ...any) {
	p.add(at, hint, format, args...)
	p.found[len(p.found)-1].Service = service
}

// err is nil when nothing was found. files is the order of the files; a file
// that is not among them comes last.
func (p *problems) err(files []string) error {
	if len(p.found) == 0 {
		return nil
	}
	rank := func(file string) int {
		if i := slices.Index(files, file); i >= 0 {
			return i
		}
		return len(files)
	}
	slices.SortStableFunc(p.found, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(rank(a.Pos.File), rank(b.Pos.File)),
			strings.Compare(a.Pos.File, b.Pos.File),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column),
		)
	})
	return &Error{Problems: slices.Compact(p.found)}
}
