package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/locald/locald/ipc"
)

// The phases of a layer, as boot events have them.
const (
	layerWaiting    = "waiting"
	layerRetrying   = "retrying"
	layerDownloaded = "downloaded"
	layerUnpacking  = "unpacking"
	layerDone       = "done"
)

// pulled is the last that is known of an image on its way.
type pulled struct {
	layers []*pulledLayer // in the order in which they were heard of
	step   string
	pace   pace
	told   map[string]bool // reasons for trying again
}

type pulledLayer struct {
	id, phase      string
	current, total int64
}

// hear takes in a progress event. It reports whether the event says for the
// first time why something is tried again.
func (p *pulled) hear(e ipc.Event, now time.Time) (trouble bool) {
	if e.Layer != "" {
		p.layer(e)
		return false
	}
	if e.Phase == layerRetrying {
		if p.told == nil {
			p.told = map[string]bool{}
		}
		trouble = !p.told[e.Message]
		p.told[e.Message] = true
		return trouble
	}
	if e.Message != p.step {
		p.step, p.pace = e.Message, pace{}
	}
	p.pace.add(now, e.Current)
	return false
}

func (p *pulled) layer(e ipc.Event) {
	i := slices.IndexFunc(p.layers, func(l *pulledLayer) bool { return l.id == e.Layer })
	if i < 0 {
		i = len(p.layers)
		p.layers = append(p.layers, &pulledLayer{id: e.Layer})
	}
	l := p.layers[i]
	l.phase, l.current, l.total = e.Phase, e.Current, e.Total
}

// text is the whole of it in at most room columns. How fast it comes is left
// out first, then how many layers have come, then some of the image's name.
func (p *pulled) text(e ipc.Event, room int) string {
	message := cell(e.Message)
	var amounts []string
	switch {
	case e.Total > 0:
		amounts = append(amounts, size(e.Current)+"/"+size(e.Total))
	case e.Current > 0:
		amounts = append(amounts, size(e.Current))
	}
	if done := p.count(layerDone); len(p.layers) > 1 {
		amounts = append(amounts, fmt.Sprintf("%d/%d layers", done, len(p.layers)))
	}
	if rate := p.pace.rate(); rate > 0 && e.Current < e.Total {
		amounts = append(amounts, size(rate)+"/s")
	}
	for n := len(amounts); n > 0; n-- {
		text := message + " " + strings.Join(amounts[:n], ", ")
		if columnsOf(text) <= room {
			return text
		}
	}
	const least = 16
	if len(amounts) > 0 && room-1-columnsOf(amounts[0]) >= least {
		return clip(message, room-1-columnsOf(amounts[0])) + " " + amounts[0]
	}
	return clip(message, room)
}

func (p *pulled) count(phase string) (n int) {
	for _, l := range p.layers {
		if l.phase == phase {
			n++
		}
	}
	return n
}

// pace is how fast bytes came of late.
type pace struct{ seen []paceMark }

type paceMark struct {
	at    time.Time
	bytes int64
}

// ofLate is how far back a pace looks.
const ofLate = 4 * time.Second

func (p *pace) add(at time.Time, bytes int64) {
	p.seen = append(p.seen, paceMark{at, bytes})
	for len(p.seen) > 2 && at.Sub(p.seen[1].at) >= ofLate {
		p.seen = p.seen[1:]
	}
}

// rate is bytes a second, 0 before that can be told.
func (p *pace) rate() int64 {
	if len(p.seen) < 2 {
		return 0
	}
	first, last := p.seen[0], p.seen[len(p.seen)-1]
	took := last.at.Sub(first.at)
	if took < time.Second {
		return 0
	}
	return max(0, int64(float64(last.bytes-first.bytes)/took.Seconds()))
}

// fold chooses which layers have a line when there is room for so many. A layer
// that several services wait for has one line. Those that are done make room
// first, then those that wait, and no service takes the room of another.
func fold(all []*pulled, room int) map[*pulledLayer]bool {
	type candidate struct {
		layer       *pulledLayer
		rank, index int
	}
	var candidates []candidate
	at := map[string]int{} // of a layer among the candidates
	for _, p := range all {
		before := map[int]int{}
		for _, l := range p.layers {
			rank := rankOf(l.phase)
			i, twice := at[l.id]
			switch {
			case !twice:
				at[l.id] = len(candidates)
				candidates = append(candidates, candidate{l, rank, before[rank]})
			case rank < candidates[i].rank:
				candidates[i] = candidate{l, rank, before[rank]}
			}
			before[rank]++
		}
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.index, b.index))
	})
	shown := map[*pulledLayer]bool{}
	for _, c := range candidates[:min(len(candidates), max(room, 0))] {
		shown[c.layer] = true
	}
	return shown
}

func rankOf(phase string) int {
	switch phase {
	case layerDone:
		return 2
	case layerWaiting:
		return 1
	}
	return 0
}

// widestBar is how many columns a bar takes where there is room.
const widestBar = 30

// line is a layer in at most limit columns. There is no bar where it would say
// little.
func (l *pulledLayer) line(p paint, limit int) liveLine {
	text := l.text()
	left := "    " + pad(cell(l.id), 12) + "  "
	if limit < columnsOf(left)+20 {
		left = "  " + clip(cell(l.id), 6) + "  "
	}
	bar := min(widestBar, limit-columnsOf(left)-2-20)
	if bar < 8 {
		whole := clip(left+text, limit)
		return liveLine{whole, columnsOf(whole)}
	}
	full := min(l.filled(bar), bar)
	colour := map[string]string{layerDone: dim, layerWaiting: dim, layerRetrying: red, layerUnpacking: green}[l.phase]
	if colour == "" {
		colour = yellow
	}
	drawn := p.as(colour, strings.Repeat("█", full)) + p.as(dim, strings.Repeat("░", bar-full))
	return liveLine{left + drawn + "  " + text, columnsOf(left) + bar + 2 + columnsOf(text)}
}

func (l *pulledLayer) filled(bar int) int {
	switch {
	case l.phase == layerWaiting:
		return 0
	case l.total > 0:
		return int(max(0, l.current) * int64(bar) / l.total)
	case l.phase == layerUnpacking, l.phase == layerDownloaded, l.phase == layerDone:
		return bar
	}
	return 0
}

func (l *pulledLayer) text() string {
	switch {
	case l.phase == layerUnpacking && l.total > 0:
		return fmt.Sprintf("unpacking %d %%", max(0, min(l.current, l.total))*100/l.total)
	case l.phase == layerRetrying:
		return "trying again"
	case l.phase == layerWaiting, l.phase == layerDownloaded, l.phase == layerUnpacking, l.phase == layerDone:
		return l.phase
	case l.total > 0:
		return size(l.current) + "/" + size(l.total)
	}
	return size(l.current)
}

// seldom lets progress through when it says something else than before, and
// otherwise once in a while: what is printed stays, and bytes come many times a
// second.
type seldom struct {
	every time.Duration
	said  map[string]bool      // what each service and layer was said to do
	last  map[string]time.Time // when something was said of it
}

func (s *seldom) due(e ipc.Event, now time.Time) bool {
	if s.said == nil {
		s.said, s.last = map[string]bool{}, map[string]time.Time{}
	}
	of := e.Service + "\x00" + e.Layer
	text := of + "\x00" + e.Message + "\x00" + e.Phase
	if s.said[text] && now.Sub(s.last[of]) < s.every {
		return false
	}
	s.said[text], s.last[of] = true, now
	return true
}
