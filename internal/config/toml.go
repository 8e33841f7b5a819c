package config

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
)

// kind is what sort of TOML value something is.
type kind uint8

const (
	stringKind kind = iota + 1
	integerKind
	floatKind
	booleanKind
	dateKind
	arrayKind
	tableKind
)

// String is the kind as a sentence has it.
func (k kind) String() string {
	switch k {
	case stringKind:
		return "a string"
	case integerKind:
		return "a whole number"
	case floatKind:
		return "a number"
	case booleanKind:
		return "true or false"
	case dateKind:
		return "a date or time"
	case arrayKind:
		return "a list"
	case tableKind:
		return "a table"
	}
	return "nothing"
}

// made says how a table came to be, which decides who may add to it.
type made uint8

const (
	byImplication made = iota // [a.b] makes a
	byHeader                  // [a]
	byDots                    // a.b = 1 makes a
	inline                    // a = {}
)

// value is one value of a file and where it is. A bad one has been reported
// and is not to be looked at again.
type value struct {
	kind   kind
	pos    Pos
	bad    bool
	text   string // of a string; of anything else but arrays and tables as it is written
	number int64
	float  float64 // of whole numbers too
	truth  bool
	items  []*value

	made    made
	headed  bool // an array of tables, made by [[a]]
	entries []entry
	index   map[string]int // of entries, once they are many
}

// entry is one key of a table.
type entry struct {
	name  string
	pos   Pos
	value *value
}

// manyKeys is from how many keys on a table is looked up through an index.
const manyKeys = 16

// lookup is the entry of that name, or nil. A nil table has none.
func (v *value) lookup(name string) *entry {
	if v == nil {
		return nil
	}
	if v.index != nil {
		if i, ok := v.index[name]; ok {
			return &v.entries[i]
		}
		return nil
	}
	for i := range v.entries {
		if v.entries[i].name == name {
			return &v.entries[i]
		}
	}
	return nil
}

// get is the value of that name unless it is bad; nil when there is none.
func (v *value) get(name string) *value {
	if e := v.lookup(name); e != nil && !e.value.bad {
		return e.value
	}
	return nil
}

func (v *value) add(e entry) {
	v.entries = append(v.entries, e)
	switch {
	case v.index != nil:
		v.index[e.name] = len(v.entries) - 1
	case len(v.entries) > manyKeys:
		v.index = make(map[string]int, 2*len(v.entries))
		for i, known := range v.entries {
			v.index[known.name] = i
		}
	}
}

// merge puts over on top of v: tables key by key, other values replace.
func (v *value) merge(over *value) {
	for _, e := range over.entries {
		known := v.lookup(e.name)
		switch {
		case known == nil:
			v.add(e)
		case known.value.kind == tableKind && e.value.kind == tableKind:
			known.value.merge(e.value)
		default:
			known.value, known.pos = e.value, e.pos
		}
	}
}

// positions turns offsets into lines and columns. Columns count characters.
type positions struct {
	file    string
	content []byte
	offset  int // where the last answer was
	line    int
	column  int
}

func newPositions(file string, content []byte) *positions {
	return &positions{file: file, content: content, line: 1, column: 1}
}

// at is cheap for offsets in ascending order.
func (p *positions) at(offset int) Pos {
	offset = min(max(offset, 0), len(p.content))
	if offset < p.offset {
		start := bytes.LastIndexByte(p.content[:offset], '\n') + 1
		p.line -= bytes.Count(p.content[start:p.offset], []byte{'\n'})
		p.offset, p.column = start, 1
	}
	between := p.content[p.offset:offset]
	if last := bytes.LastIndexByte(between, '\n'); last >= 0 {
		p.line += bytes.Count(between, []byte{'\n'})
		p.column = 1
		between = between[last+1:]
	}
	p.column += utf8.RuneCount(between)
	p.offset = offset
	return Pos{File: p.file, Line: p.line, Column: p.column}
}

// builder makes a tree of the parser's expressions.
type builder struct {
	parser  unstable.Parser
	content []byte
	pos     *positions
	root    *value
	current *value // the table that the last header named; nil when that header was wrong
	*problems
}

// parseTOML reads content, which must be UTF-8. A syntax error ends the
// reading and makes the tree nil; other problems do not.
func parseTOML(file string, content []byte, found *problems) *value {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	content = content[:len(content):len(content)]
	b := &builder{
		content:  content,
		pos:      newPositions(file, content),
		root:     &value{kind: tableKind, pos: Pos{File: file, Line: 1, Column: 1}, made: byHeader},
		problems: found,
	}
	b.current = b.root
	b.parser.Reset(content)
	for b.parser.NextExpression() {
		b.expression(b.parser.Expression())
	}
	if err := b.parser.Error(); err != nil {
		b.syntax(err)
		return nil
	}
	return b.root
}

// syntax reports the error that ended the reading.
func (b *builder) syntax(err error) {
	var where *unstable.ParserError
	if !errors.As(err, &where) {
		b.add(Pos{File: b.pos.file}, "", "not valid TOML: %v", err)
		return
	}
	offset := int(b.parser.Range(where.Highlight).Offset)
	message, hint := where.Message, ""
	if strings.Contains(message, "start of value") || strings.HasPrefix(message, "expected keyword") {
		message = "expected a value"
		if offset < len(b.content) && unicode.IsLetter(rune(b.content[offset])) {
			hint = `strings need quotes: "…"`
		}
	}
	b.add(b.pos.at(offset), hint, "not valid TOML: %s", message)
}

func (b *builder) expression(n *unstable.Node) {
	switch n.Kind {
	case unstable.Table, unstable.ArrayTable:
		b.header(b.key(n), n.Kind == unstable.ArrayTable)
	case unstable.KeyValue:
		b.keyValue(b.current, n)
	}
}

// part is one part of a dotted key.
type part struct {
	name string
	pos  Pos
	end  int // the offset behind it
}

func (b *builder) key(n *unstable.Node) []part {
	var parts []part
	for it := n.Key(); it.Next(); {
		k := it.Node()
		start := int(k.Raw.Offset)
		parts = append(parts, part{string(k.Data), b.pos.at(start), start + int(k.Raw.Length)})
	}
	return parts
}

func dotted(parts []part) string {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.name
	}
	return strings.Join(names, ".")
}

// header makes the table of [a.b] or one more of [[a.b]] the current one.
func (b *builder) header(parts []part, array bool) {
	b.current = nil
	table := b.root
	for i, p := range parts[:len(parts)-1] {
		if table = b.step(table, p, byImplication); table == nil {
			b.add(p.pos, "", "%s is not a table that can be added to", dotted(parts[:i+1]))
			return
		}
	}
	last := parts[len(parts)-1]
	known := table.lookup(last.name)
	switch {
	case array && known == nil:
		b.current = &value{kind: tableKind, pos: last.pos, made: byHeader}
		table.add(entry{last.name, last.pos, &value{kind: arrayKind, pos: last.pos, headed: true, items: []*value{b.current}}})
	case array && known.value.headed:
		b.current = &value{kind: tableKind, pos: last.pos, made: byHeader}
		known.value.items = append(known.value.items, b.current)
	case !array && known == nil:
		b.current = &value{kind: tableKind, pos: last.pos, made: byHeader}
		table.add(entry{last.name, last.pos, b.current})
	case !array && known.value.kind == tableKind && known.value.made == byImplication:
		known.value.made, known.value.pos, known.pos = byHeader, last.pos, last.pos
		b.current = known.value
	default:
		b.twice(last, parts, known)
	}
}

// twice reports a key that is there already.
func (b *builder) twice(at part, parts []part, first *entry) {
	b.add(at.pos, "", "%s is written twice, first at %v", dotted(parts), first.pos)
}

// step goes into the table p of table, which it makes when it is missing; nil
// when p is something else or a table that is complete.
func (b *builder) step(table *value, p part, how made) *value {
	known := table.lookup(p.name)
	if known == nil {
		next := &value{kind: tableKind, pos: p.pos, made: how}
		table.add(entry{p.name, p.pos, next})
		return next
	}
	v := known.value
	if v.headed && how == byImplication {
		v = v.items[len(v.items)-1]
	}
	if v.kind != tableKind || v.made == inline || (how == byDots && v.made != byDots) {
		return nil
	}
	return v
}

// keyValue adds "a.b = value" to table; nil when the table's header was wrong,
// and then only the value is looked at.
func (b *builder) keyValue(table *value, n *unstable.Node) {
	parts := b.key(n)
	last := parts[len(parts)-1]
	v := b.value(n.Value(), b.pos.at(b.behindEquals(last.end)))
	if table == nil {
		return
	}
	for i, p := range parts[:len(parts)-1] {
		if table = b.step(table, p, byDots); table == nil {
			b.add(p.pos, "", "%s is not a table that can be added to", dotted(parts[:i+1]))
			return
		}
	}
	if known := table.lookup(last.name); known != nil {
		b.twice(last, parts, known)
		return
	}
	table.add(entry{last.name, last.pos, v})
}

// behindEquals is where the value begins whose key ends at offset.
func (b *builder) behindEquals(offset int) int {
	rest := b.content[offset:]
	trimmed := bytes.TrimLeft(rest, " \t")
	trimmed = bytes.TrimPrefix(trimmed, []byte("="))
	trimmed = bytes.TrimLeft(trimmed, " \t")
	return len(b.content) - len(trimmed)
}

// value makes a value of n, which begins at pos unless it says itself where: a
// list does not.
func (b *builder) value(n *unstable.Node, pos Pos) *value {
	if n.Raw.Length > 0 {
		pos = b.pos.at(int(n.Raw.Offset))
	}
	v := &value{pos: pos, text: string(n.Data)}
	switch n.Kind {
	case unstable.String:
		v.kind = stringKind
	case unstable.Bool:
		v.kind, v.truth = booleanKind, v.text == "true"
	case unstable.Integer:
		b.integer(v)
	case unstable.Float:
		v.kind = floatKind
		// A number out of range is an infinity, which every range refuses.
		v.float, _ = strconv.ParseFloat(strings.ReplaceAll(v.text, "_", ""), 64)
	case unstable.Array:
		v.kind = arrayKind
		for it := n.Children(); it.Next(); {
			v.items = append(v.items, b.value(it.Node(), pos))
		}
	case unstable.InlineTable:
		v.kind, v.made = tableKind, byHeader
		for it := n.Children(); it.Next(); {
			b.keyValue(v, it.Node())
		}
		v.made = inline
	default:
		v.kind = dateKind
	}
	return v
}

func (b *builder) integer(v *value) {
	v.kind = integerKind
	number, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 0, 64)
	if err != nil {
		b.add(v.pos, "", "%s is too large a number", v.text)
		v.bad = true
	}
	v.number, v.float = number, float64(number)
}
