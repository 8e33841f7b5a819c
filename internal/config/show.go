package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Value is one value of a resolved configuration.
type Value struct {
	Key    string `json:"key"`    // "services.web.env.LOG"
	Value  any    `json:"value"`  // a string, number, boolean, or a list of strings
	Origin string `json:"origin"` // "locald.toml:12", or "default"
	Secret bool   `json:"secret,omitempty"`
}

// String is "key = value" as TOML has it.
func (v Value) String() string { return v.Key + " = " + written(v.Value) }

// Show is a project's configuration with its defaults, in the order of the
// file. Secrets are masked unless reveal is set.
func Show(p *Project, reveal bool) []Value {
	l := &listing{reveal: reveal}
	l.at, l.prefix = p.At, "project."
	l.add("name", p.Name)
	l.add("engine", p.Engine)
	l.add("env_file", shownEnvFiles(p.EnvFiles))
	var inherit any = p.Inherit.All
	if p.Inherit.Names != nil {
		inherit = p.Inherit.Names
	}
	l.add("inherit_env", inherit)
	l.add("logs", []pair{{"keep", span(p.Logs.Keep)}, {"size", p.Logs.Size}})
	for _, s := range p.Services {
		l.at, l.prefix = s.At, "services."+show(s.Name)+"."
		for _, k := range serviceKeys {
			l.add(k.name, k.get(s))
		}
		l.implied(s)
	}
	return l.values
}

// listing collects values.
type listing struct {
	values []Value
	at     map[string]Pos
	prefix string
	reveal bool
}

func (l *listing) add(key string, v any) {
	if v != nil {
		l.addBelow(key, key, v)
	}
}

// addBelow adds a value, or each of a table; at is its name among the positions.
func (l *listing) addBelow(at, key string, v any) {
	table, ok := v.([]pair)
	if !ok {
		l.addValue(at, key, v)
		return
	}
	for _, p := range table {
		l.addBelow(at+"."+p.name, key+"."+show(p.name), p.value)
	}
}

// implied gives dependencies that nobody wrote the position of the first
// reference that implies one.
func (l *listing) implied(s *Service) {
	if len(s.DependsOn) == 0 || s.At["depends_on"].Line != 0 {
		return
	}
	i := slices.IndexFunc(l.values, func(v Value) bool { return v.Key == l.prefix+"depends_on" })
	l.values[i].Origin = line(s.DependsOn[0].Pos)
}

func line(p Pos) string {
	p.Column = 0
	return p.String()
}

// addValue adds one value.
func (l *listing) addValue(at, key string, v any) {
	origin := "default"
	if pos, ok := l.at[at]; ok {
		origin = line(pos)
	}
	shown := Value{Key: l.prefix + key, Value: v, Origin: origin}
	last := at[strings.LastIndexByte(at, '.')+1:]
	switch v := v.(type) {
	case string:
		shown.Secret = Secret(last, v)
		if shown.Secret && !l.reveal {
			shown.Value = Hide(last, v)
		}
	case []string:
		hidden := make([]string, len(v))
		for i, s := range v {
			hidden[i] = MaskURL(s)
		}
		shown.Secret = !slices.Equal(hidden, v)
		if shown.Secret && !l.reveal {
			shown.Value = hidden
		}
	}
	l.values = append(l.values, shown)
}

// Hide is what is shown of the value of a variable: Mask when its name makes
// it a secret, otherwise the value with passwords in URLs masked.
func Hide(name, value string) string {
	if Secret(name, "") {
		return Mask
	}
	return MaskURL(value)
}

// written is a value as TOML has it.
func written(v any) string {
	switch v := v.(type) {
	case string:
		return tomlString(v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = tomlString(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return fmt.Sprint(v)
}

func word(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func words(list []string) any {
	if len(list) == 0 {
		return nil
	}
	return list
}

func number(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// span is a duration as people write it: "5m", not "5m0s".
func span(d time.Duration) any {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// shown is nil, a string or a list of strings.
func (c Command) shown() any {
	switch {
	case c.Shell != "":
		return c.Shell
	case len(c.Argv) > 0:
		return c.Argv
	}
	return nil
}

func (h Health) shown() any {
	switch {
	case h.None:
		return "none"
	case !h.Written:
		return nil
	case h.Notify && h.Interval == defaultInterval && h.Timeout == defaultTimeout && h.Retries == defaultRetries && h.StartPeriod == defaultStartPeriod:
		return "notify"
	}
	var table []pair
	add := func(name string, v any) {
		if v != nil {
			table = append(table, pair{name, v})
		}
	}
	add("http", word(h.HTTP))
	add("tcp", number(h.TCP))
	if h.TCP == -1 {
		table[len(table)-1].value = true
	}
	add("command", h.Command.shown())
	add("log", word(h.Log))
	if h.Notify {
		add("notify", true)
	}
	add("interval", span(h.Interval))
	add("timeout", span(h.Timeout))
	add("retries", h.Retries)
	add("start_period", span(h.StartPeriod))
	return table
}

func (b *Build) shown() any {
	if b == nil {
		return nil
	}
	table := []pair{{"context", b.Context}, {"dockerfile", b.Dockerfile}}
	if b.Target != "" {
		table = append(table, pair{"target", b.Target})
	}
	if args := shownVars(b.Args); args != nil {
		table = append(table, pair{"args", args})
	}
	return table
}

func shownVars(vars []Var) any {
	if len(vars) == 0 {
		return nil
	}
	table := make([]pair, len(vars))
	for i, v := range vars {
		table[i] = pair{v.Name, v.Value}
	}
	return table
}

func shownEnvFiles(files []EnvFile) any {
	if len(files) == 0 {
		return nil
	}
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.Path
	}
	return paths
}

// shownDependencies says "db", or "db (started)" where the condition is not
// the usual one.
func shownDependencies(deps []Dependency) any {
	if len(deps) == 0 {
		return nil
	}
	list := make([]string, len(deps))
	for i, dep := range deps {
		list[i] = dep.Service
		switch {
		case dep.Implied:
			list[i] += " (by a reference)"
		case dep.Condition == Started:
			list[i] += " (started)"
		}
	}
	return list
}

func shownVolumes(volumes []Volume) any {
	if len(volumes) == 0 {
		return nil
	}
	list := make([]string, len(volumes))
	for i, v := range volumes {
		list[i] = v.String()
	}
	return list
}

func shownMap[V cmp.Ordered](m map[string]V) any {
	if len(m) == 0 {
		return nil
	}
	table := make([]pair, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		table = append(table, pair{name, m[name]})
	}
	return table
}
