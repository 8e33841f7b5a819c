package logs

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"sort"
	"unicode"
	"unicode/utf8"
)

// machine runs a regular expression over lines as an automaton that is in one
// state at a time: one look into a table for each byte, where package regexp
// keeps track of all the ways to match. It says where a line matches, and nothing
// of what. States are made when they are reached first.
type machine struct {
	prog   *syntax.Prog
	looks  bool   // it asks what is before or behind a place
	bounds []rune // where the runes begin that are all alike to prog, up to the next
	class  [utf8.RuneSelf]uint16
	stride int // how many classes there are

	states [][]uint32        // what each is: what came before it, and where in prog it is
	known  map[string]uint32 // the state for that
	steps  []uint32          // what follows on a state plus a class

	reached, next sparse
	stack         []uint32
}

// A state is the place in steps where its row begins.
const (
	unknown    = 0
	found      = 1
	firstState = 2 // a line begins

	lineEnd = 0 // the class of a newline, and of the end

	maxClasses = 512
	maxSteps   = 1 << 20 // an expression that needs more is for package regexp
)

// What came before a place, as far as prog asks.
const (
	beforeAll = iota
	afterWord
	afterOther
)

// newMachine returns nil for an expression that is too large.
func newMachine(tree *syntax.Regexp) *machine {
	prog, err := syntax.Compile(tree)
	if err != nil {
		return nil
	}
	m := &machine{
		prog: prog, known: map[string]uint32{}, steps: make([]uint32, firstState),
		reached: newSparse(len(prog.Inst)), next: newSparse(len(prog.Inst)),
	}
	m.classify()
	if m.stride > maxClasses {
		return nil
	}
	m.state([]uint32{beforeAll})
	return m
}

// classify divides the runes into classes.
func (m *machine) classify() {
	begins := map[rune]bool{0: true}
	split := func(lo, hi rune) { begins[lo], begins[hi+1] = true, true }
	for _, inst := range m.prog.Inst {
		switch inst.Op {
		case syntax.InstEmptyWidth:
			m.looks = true
			for _, word := range []string{"09", "AZ", "__", "az"} {
				split(rune(word[0]), rune(word[1]))
			}
		case syntax.InstRune, syntax.InstRune1:
			for i := 0; i+1 < len(inst.Rune); i += 2 {
				split(inst.Rune[i], inst.Rune[i+1])
			}
			if len(inst.Rune) != 1 {
				continue
			}
			one := inst.Rune[0]
			split(one, one)
			for r := unicode.SimpleFold(one); r != one; r = unicode.SimpleFold(r) {
				split(r, r) // harmless where case counts
			}
		}
	}
	for r := range begins {
		m.bounds = append(m.bounds, r)
	}
	slices.Sort(m.bounds)
	m.stride = len(m.bounds) + 1
	for r := range m.class {
		m.class[r] = uint16(m.classOf(rune(r)))
	}
}

func (m *machine) classOf(r rune) int {
	if r == '\n' {
		return lineEnd
	}
	return sort.Search(len(m.bounds), func(i int) bool { return m.bounds[i] > r })
}

// index is a place in the first line of p that matches, or behind it; -1 when
// there is none. p begins with a line. ok is false when the expression turns out
// to be too large.
func (m *machine) index(p []byte) (at int, ok bool) {
	state := uint32(firstState)
	for at < len(p) {
		class, size := 0, 1
		if b := p[at]; b < utf8.RuneSelf {
			class = int(m.class[b])
		} else {
			var r rune
			r, size = utf8.DecodeRune(p[at:])
			class = m.classOf(r)
		}
		next := m.steps[int(state)+class]
		if next == unknown {
			if next, ok = m.step(state, class); !ok {
				return 0, false
			}
		}
		if next == found {
			return at, true
		}
		state = next
		at += size
	}
	if at > 0 && p[at-1] == '\n' {
		return -1, true
	}
	switch next, ok := m.step(state, lineEnd); {
	case !ok:
		return 0, false
	case next == found:
		return at, true
	}
	return -1, true
}

// step finds what follows on a state when a rune of a class comes. It is found
// when what came before is a match, which may depend on that rune.
func (m *machine) step(state uint32, class int) (next uint32, ok bool) {
	of := m.states[(state-firstState)/uint32(m.stride)]
	r := rune(-1)
	if class != lineEnd {
		r = m.bounds[class-1]
	}
	next, ok = m.after(of, r)
	if ok {
		m.steps[int(state)+class] = next
	}
	return next, ok
}

func (m *machine) after(of []uint32, r rune) (next uint32, ok bool) {
	before := [...]rune{beforeAll: -1, afterWord: 'a', afterOther: ' '}[of[0]]
	empty := syntax.EmptyOpContext(before, r)
	m.reached.clear()
	m.next.clear()
	m.stack = append(append(m.stack[:0], of[1:]...), uint32(m.prog.Start)) // a match may begin anywhere
	for len(m.stack) > 0 {
		pc := m.stack[len(m.stack)-1]
		m.stack = m.stack[:len(m.stack)-1]
		if !m.reached.add(pc) {
			continue
		}
		switch inst := &m.prog.Inst[pc]; inst.Op {
		case syntax.InstMatch:
			return found, true
		case syntax.InstAlt, syntax.InstAltMatch:
			m.stack = append(m.stack, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			m.stack = append(m.stack, inst.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&^empty == 0 {
				m.stack = append(m.stack, inst.Out)
			}
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if r >= 0 && inst.MatchRune(r) {
				m.next.add(inst.Out)
			}
		}
	}
	if r < 0 {
		return firstState, true
	}
	came := uint32(beforeAll)
	switch {
	case m.looks && syntax.IsWordChar(r):
		came = afterWord
	case m.looks:
		came = afterOther
	}
	slices.Sort(m.next.list)
	return m.state(append([]uint32{came}, m.next.list...))
}

// state is the one that stands for what is in of.
func (m *machine) state(of []uint32) (state uint32, ok bool) {
	var key []byte
	for _, n := range of {
		key = binary.NativeEndian.AppendUint32(key, n)
	}
	if state, ok = m.known[string(key)]; ok {
		return state, true
	}
	if len(m.steps)+m.stride > maxSteps {
		return 0, false
	}
	state = uint32(len(m.steps))
	m.known[string(key)] = state
	m.states = append(m.states, of)
	m.steps = append(m.steps, make([]uint32, m.stride)...)
	return state, true
}

// sparse is a set of small numbers that is cleared at once.
type sparse struct {
	list []uint32
	at   []uint32 // where in list each would be
}

func newSparse(n int) sparse { return sparse{at: make([]uint32, n)} }

func (s *sparse) clear() { s.list = s.list[:0] }

// add reports whether n was not in the set.
func (s *sparse) add(n uint32) bool {
	if i := s.at[n]; int(i) < len(s.list) && s.list[i] == n {
		return false
	}
	s.at[n] = uint32(len(s.list))
	s.list = append(s.list, n)
	return true
}
