package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// shape is what a value may look like: one form for each kind that it may
// have.
type shape []form

// form is a shape's part for one kind.
type form struct {
	kind kind

	// Of strings and of the names in a table with free keys: what is valid
	// instead of something that is not.
	suggest func(string) string

	// Of strings.
	oneOf   []string
	pattern *pattern
	format  func(string) error // what a pattern cannot say
	example string             // a hint for pattern and format
	refs    bool               // references are resolved in it

	// Of numbers; both 0 is no limit. Above excludes low itself.
	low, high float64
	above     bool

	// Of true or false: only true is accepted.
	onlyTrue bool

	// Of lists.
	items shape
	some  bool // at least one

	// Of tables: fixed keys, or free ones.
	keys   []field
	names  *pattern
	values shape
}

// field is one key of a table with fixed keys.
type field struct {
	name  string
	doc   string
	shape shape
}

func (s shape) form(k kind) *form {
	for i := range s {
		if s[i].kind == k || (s[i].kind == floatKind && k == integerKind) {
			return &s[i]
		}
	}
	return nil
}

// String is the shape as a sentence has it.
func (s shape) String() string {
	var words []string
	for _, f := range s {
		words = append(words, f.words()...)
	}
	if len(words) > 1 {
		return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	}
	return strings.Join(words, "")
}

// words are what the form accepts, as a sentence has it.
func (f form) words() []string {
	switch {
	case f.onlyTrue:
		return []string{"true"}
	case f.kind == booleanKind:
		return []string{"true", "false"}
	case f.kind == stringKind && len(f.oneOf) > 0:
		quoted := make([]string, len(f.oneOf))
		for i, word := range f.oneOf {
			quoted[i] = `"` + word + `"`
		}
		return quoted
	case f.kind == arrayKind && len(f.items) == 1 && f.items[0].kind == stringKind:
		return []string{"a list of strings"}
	}
	return []string{f.kind.String()}
}

// checker compares values with shapes and reports every difference once. What
// it has reported is marked bad.
type checker struct {
	*problems
	service string // whose keys are being checked
}

func (c *checker) blame(v *value, hint, format string, args ...any) {
	v.bad = true
	c.addTo(c.service, v.pos, hint, format, args...)
}

func (c *checker) check(path string, v *value, s shape) {
	if v.bad {
		return
	}
	f := s.form(v.kind)
	if f == nil {
		hint := instead(v, s)
		if Secret(path, "") {
			hint = ""
		}
		c.blame(v, hint, "%s must be %s, not %s", path, s, describe(v))
		return
	}
	switch v.kind {
	case stringKind:
		c.checkString(path, v, f)
	case integerKind, floatKind:
		c.checkNumber(path, v, f)
	case booleanKind:
		if f.onlyTrue && !v.truth {
			c.blame(v, "leave "+path[strings.LastIndexByte(path, '.')+1:]+" out", "%s can only be true", path)
		}
	case arrayKind:
		c.checkList(path, v, f)
	case tableKind:
		c.checkTable(path, v, f)
	}
}

// describe is a value's kind as a sentence has it.
func describe(v *value) string {
	if v.headed {
		return "a list of tables"
	}
	return v.kind.String()
}

// instead is what to write for a value of a wrong kind, where it can be told.
func instead(v *value, s shape) string {
	list := s.form(arrayKind)
	switch {
	case v.headed:
		return "write [name], not [[name]]"
	case v.kind == stringKind && list != nil && list.items.form(stringKind) != nil:
		return fmt.Sprintf("[%s]", quote(v.text))
	case (v.kind == integerKind || v.kind == floatKind || v.kind == booleanKind) && s.form(stringKind) != nil && len(s.form(stringKind).oneOf) == 0:
		return quote(v.text)
	case v.kind == stringKind && (s.form(integerKind) != nil || s.form(floatKind) != nil) && numeric.MatchString(v.text):
		return v.text + " without quotes"
	case v.kind == stringKind && s.form(booleanKind) != nil && (v.text == "true" || v.text == "false"):
		return v.text + " without quotes"
	}
	return ""
}

var numeric = patternOf(`^(0|[1-9][0-9]*)(\.[0-9]+)?$`)

func (c *checker) checkString(path string, v *value, f *form) {
	if strings.IndexByte(v.text, 0) >= 0 {
		c.blame(v, "", "%s has a NUL character in it", path)
		return
	}
	if !f.refs && HasReference(v.text) {
		c.blame(v, "references are resolved in env, command, image, build.args, volumes and health", "%s cannot have a reference", path)
		return
	}
	if len(f.oneOf) > 0 && !slices.Contains(f.oneOf, v.text) {
		hint := didYouMean(v.text, f.oneOf, "")
		if f.suggest != nil && slices.Contains(f.oneOf, f.suggest(v.text)) {
			hint = "did you mean " + f.suggest(v.text) + "?"
		}
		c.blame(v, hint, "%s must be %s, not %s", path, shape{*f}, quote(v.text))
		return
	}
	if f.refs && HasReference(v.text) {
		return
	}
	if f.pattern != nil && !f.pattern.MatchString(v.text) {
		c.blame(v, f.example, "%s: %s is not valid", path, quote(v.text))
		return
	}
	if f.format == nil {
		return
	}
	if err := f.format(v.text); err != nil {
		c.blame(v, f.example, "%s: %v", path, err)
	}
}

func (c *checker) checkNumber(path string, v *value, f *form) {
	if f.low == 0 && f.high == 0 && !f.above {
		return
	}
	if v.float >= f.low && v.float <= f.high && (!f.above || v.float > f.low) {
		return
	}
	if f.high > maxPort && v.float < f.low && !f.above {
		c.blame(v, f.example, "%s must be at least %s, not %s", path, strconv.FormatFloat(f.low, 'f', -1, 64), v.text)
		return
	}
	if f.above {
		c.blame(v, f.example, "%s must be more than %v, not %s", path, f.low, v.text)
		return
	}
	c.blame(v, f.example, "%s must be between %v and %.0f, not %s", path, f.low, f.high, v.text)
}

func (c *checker) checkList(path string, v *value, f *form) {
	if f.some && len(v.items) == 0 {
		c.blame(v, "", "%s is an empty list", path)
		return
	}
	for i, item := range v.items {
		c.check(fmt.Sprintf("%s[%d]", path, i), item, f.items)
	}
}

func (c *checker) checkTable(path string, v *value, f *form) {
	for _, e := range v.entries {
		if f.names != nil {
			c.checkName(path, e, f)
			continue
		}
		i := slices.IndexFunc(f.keys, func(k field) bool { return k.name == e.name })
		if i < 0 {
			e.value.bad = true
			c.unknownKey(path, e, f.keys)
			continue
		}
		c.check(path+"."+e.name, e.value, f.keys[i].shape)
	}
}

// checkName checks a key of a table with free ones.
func (c *checker) checkName(path string, e entry, f *form) {
	if !f.names.MatchString(e.name) {
		e.value.bad = true
		hint := f.example
		if f.suggest != nil && f.suggest(e.name) != "" {
			hint = "did you mean " + f.suggest(e.name) + "?"
		}
		c.addTo(c.service, e.pos, hint, "%s: %s is not a valid name", path, quote(e.name))
		return
	}
	c.check(path+"."+e.name, e.value, f.values)
}

func (c *checker) unknownKey(path string, e entry, keys []field) {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	c.addTo(c.service, e.pos, didYouMean(e.name, names, "its keys are"), "%s: unknown key %s", path, show(e.name))
}

// show is a key as it has to be written.
func show(key string) string {
	if bareKey.MatchString(key) {
		return key
	}
	return quote(key)
}

var bareKey = patternOf(`^[A-Za-z0-9_-]+$`)

// quote is s as a TOML string, cut when it is long and without passwords in
// URLs: it ends up in messages.
func quote(s string) string {
	s = MaskURL(s)
	if runes := []rune(s); len(runes) > 80 {
		s = string(runes[:79]) + "…"
	}
	return tomlString(s)
}

// tomlString is s as a TOML basic string.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case unicode.IsControl(r) || !unicode.IsPrint(r):
			if r > 0xffff {
				fmt.Fprintf(&b, `\U%08X`, r)
			} else {
				fmt.Fprintf(&b, `\u%04X`, r)
			}
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
