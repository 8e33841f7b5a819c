package logs

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// needle finds a text in the way that suits what is searched. A text that is long
// enough is looked for by strides, of which each takes one look. Where too many
// of those looks find something that resembles it, and for short texts, its two
// bytes count that are the rarest there: bytes.Index goes by the first two,
// which in a log may be everywhere.
type needle struct {
	text   []byte
	stride int                  // from one look to the next; 0 is by rare bytes
	grams  *[1 << gramBits]bool // which there are in text, by their hash
	rarest int                  // where in text; what it is compared with first is second
	second int
	known  bool
}

const (
	learnFrom  = 16 << 10 // how much of what is searched says what is rare there
	gramSize   = 4        // how many bytes a look takes
	gramBits   = 12
	minStrided = 8  // the shortest text that is looked for by strides
	fewHits    = 32 // one in so many looks may find something in vain
)

// gram is the hash of the bytes that p begins with.
func gram(p []byte) uint32 { return binary.LittleEndian.Uint32(p) * 0x9e3779b1 >> (32 - gramBits) }

func (n *needle) learn(p []byte) {
	n.known = true
	p = p[:min(len(p), learnFrom)]
	if len(n.text) >= minStrided {
		n.stride, n.grams = len(n.text)-gramSize+1, new([1 << gramBits]bool)
		for i := range n.stride {
			n.grams[gram(n.text[i:])] = true
		}
		hits := 0
		for at := n.look(p, n.stride-1); at >= 0; at = n.look(p, at+n.stride) {
			hits++
		}
		if hits*fewHits <= len(p)/n.stride {
			return
		}
		n.stride = 0
	}
	var seen [256]int
	for _, b := range p {
		seen[b]++
	}
	by := make([]int, len(n.text))
	for i := range by {
		by[i] = i
	}
	slices.SortStableFunc(by, func(i, j int) int { return seen[n.text[i]] - seen[n.text[j]] })
	n.rarest, n.second = by[0], by[min(1, len(by)-1)]
}

// index is where the text is first, or -1.
func (n *needle) index(p []byte) int {
	if !n.known {
		n.learn(p)
	}
	if n.stride > 0 {
		return n.byStrides(p)
	}
	return n.byRareBytes(p)
}

// byStrides goes by this: of places that are a stride apart, exactly one is the
// beginning of a gram inside of the text, wherever that begins.
func (n *needle) byStrides(p []byte) int {
	for at := n.look(p, n.stride-1); at >= 0; at = n.look(p, at+n.stride) {
		from := at - n.stride + 1
		if i := bytes.Index(p[from:min(at+len(n.text), len(p))], n.text); i >= 0 {
			return from + i
		}
	}
	return -1
}

// look is the first of the places from at on, a stride apart, where a gram may be
// of the text, or -1.
func (n *needle) look(p []byte, at int) int {
	grams, stride := n.grams, n.stride
	for ; at <= len(p)-gramSize; at += stride {
		if grams[gram(p[at:])] {
			return at
		}
	}
	return -1
}

func (n *needle) byRareBytes(p []byte) int {
	rare, other := n.text[n.rarest], n.text[n.second]
	last := len(p) - len(n.text) // where the text can begin
	for at := 0; at <= last; at++ {
		i := bytes.IndexByte(p[at+n.rarest:last+n.rarest+1], rare)
		if i < 0 {
			return -1
		}
		at += i
		if p[at+n.second] == other && string(p[at:at+len(n.text)]) == string(n.text) {
			return at
		}
	}
	return -1
}
