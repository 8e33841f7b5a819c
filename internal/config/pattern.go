package config

import (
	"regexp"
	"sync"
)

// pattern is a regular expression that is compiled when it is first used. This
// program is started for each container, where nobody reads a configuration and
// every millisecond counts.
type pattern struct {
	text     string
	compiled func() *regexp.Regexp
}

func patternOf(text string) *pattern {
	return &pattern{text, sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })}
}

func (p *pattern) MatchString(s string) bool { return p.compiled().MatchString(s) }

func (p *pattern) String() string { return p.text }
