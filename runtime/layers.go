package runtime

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Phase is what happens to a layer of an image.
type Phase string

// The phases of a layer. Unpacking may be told of without bytes.
const (
	Waiting     Phase = "waiting" // for its turn, or for whoever else brings it
	Downloading Phase = "downloading"
	Retrying    Phase = "retrying"   // its download broke off
	Downloaded  Phase = "downloaded" // and waits to be unpacked
	Unpacking   Phase = "unpacking"
	Done        Phase = "done"
)

// reportEvery is how often bytes are reported, of each layer and of the whole.
const reportEvery = time.Second / 10

// Layers makes the progress of an image's pull out of what a runtime hears of
// its layers, and reports both: each layer, and what they come to together.
// Bytes are reported ten times a second at most, and what begins at once. Its
// methods may be called concurrently; they call report one at a time.
type Layers struct {
	image  string
	report func(Progress)

	mu      sync.Mutex
	all     map[string]*layer
	trouble string // why something is tried again
	of      string // the layer that it is about, or empty
	step    string // that was reported last
	told    time.Time
}

// layer is how far one has come.
type layer struct {
	phase             Phase
	loaded, size      int64
	unpacked, unpacks int64
	told              time.Time
}

// NewLayers reports that the image is being pulled.
func NewLayers(image string, report func(Progress)) *Layers {
	l := &Layers{image: image, report: report, all: map[string]*layer{}}
	l.sum(true)
	return l
}

// Set says what happens to a layer, and how many bytes of it have been
// downloaded or, while it is unpacked, unpacked. A total that is not known is 0.
func (l *Layers) Set(id string, phase Phase, current, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.all[id]
	if one == nil {
		if phase == Done {
			return // it was there before
		}
		one = &layer{}
		l.all[id] = one
	}
	began := one.phase != phase
	one.phase = phase
	switch phase {
	case Waiting:
		one.size = max(one.size, total)
	case Downloading:
		one.loaded, one.size = current, max(one.size, total)
	case Downloaded:
		one.loaded = one.size
	case Unpacking:
		one.loaded, one.unpacked, one.unpacks = one.size, current, max(one.unpacks, total)
	case Done:
		one.loaded, one.unpacked = one.size, one.unpacks
	case Retrying: // says Retry
	}
	if l.of == id || l.of == "" {
		l.trouble, l.of = "", ""
	}
	l.tell(id, one, began)
	l.sum(false)
}

// Retry says why a layer is tried again, or with an empty id the image.
func (l *Layers) Retry(id, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	trouble := reason
	if id != "" {
		trouble = "layer " + id + ": " + reason
	}
	if l.trouble == trouble {
		return
	}
	l.trouble, l.of = trouble, id
	if one := l.all[id]; one != nil {
		one.phase = Retrying
		l.tell(id, one, true)
	}
	l.sum(true)
}

// Finish reports the whole once more, with nothing left to come.
func (l *Layers) Finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, one := range l.all {
		if one.phase != Done {
			one.phase, one.loaded, one.unpacked = Done, one.size, one.unpacks
			l.tell(id, one, true)
		}
	}
	l.trouble = ""
	l.sum(true)
}

// In returns the layers that are in a phase, sorted.
func (l *Layers) In(phase Phase) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for id, one := range l.all {
		if one.phase == phase {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	return found
}

func (l *Layers) tell(id string, one *layer, began bool) {
	now := time.Now()
	if !began && now.Sub(one.told) < reportEvery {
		return
	}
	one.told = now
	p := Progress{Step: "pulling " + l.image, Layer: id, Phase: one.phase, Current: one.loaded, Total: one.size}
	if one.phase == Unpacking {
		p.Current, p.Total = one.unpacked, one.unpacks
	}
	l.report(p)
}

// sum reports the whole: what is downloaded, and once all of it is, what is
// unpacked.
func (l *Layers) sum(now bool) {
	load, unpack := Progress{Step: "pulling " + l.image}, Progress{Step: "unpacking " + l.image}
	loading, unpacking := false, false
	for _, one := range l.all {
		load.Current += one.loaded
		load.Total += one.size
		unpack.Current += one.unpacked
		unpack.Total += one.unpacks
		unpacking = unpacking || one.phase == Downloaded || one.phase == Unpacking
		loading = loading || one.phase == Waiting || one.phase == Downloading || one.phase == Retrying
	}
	p := load
	switch {
	case l.trouble != "":
		p.Step, p.Phase = fmt.Sprintf("pulling %s: %s; trying again", l.image, l.trouble), Retrying
	case !loading && (unpacking || l.step == unpack.Step):
		p = unpack
	}
	at := time.Now()
	if !now && p.Step == l.step && at.Sub(l.told) < reportEvery {
		return
	}
	l.step, l.told = p.Step, at
	l.report(p)
}
