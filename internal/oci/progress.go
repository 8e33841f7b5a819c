package oci

import (
	"sync"
	"time"
)

// Phase is what happens to a layer.
type Phase string

// The phases of a layer, in their order. Unpacking goes on while a layer is
// downloaded; the phase begins when the last byte has come.
const (
	Waiting     Phase = "waiting" // for its turn, or for whoever else pulls it
	Downloading Phase = "downloading"
	Retrying    Phase = "retrying" // Reason says why
	Unpacking   Phase = "unpacking"
	Verifying   Phase = "verifying"
	Done        Phase = "done"
)

// Progress is how far one layer has come. Current and Total are bytes as they
// are downloaded; the sum over all layers is what the pull has to bring.
// A Retrying without a layer is about the image.
type Progress struct {
	Layer          string // the first 12 digits of its digest
	Phase          Phase
	Current, Total int64
	Reason         string
}

// teller reports progress one at a time, and downloads ten times a second.
type teller struct {
	report func(Progress)
	mu     sync.Mutex
	last   map[string]time.Time
}

func newTeller(report func(Progress)) *teller {
	return &teller{report: report, last: map[string]time.Time{}}
}

func (t *teller) tell(p Progress) {
	if t.report == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	const interval = time.Second / 10
	if now := time.Now(); p.Phase == Downloading {
		if now.Sub(t.last[p.Layer]) < interval {
			return
		}
		t.last[p.Layer] = now
	}
	t.report(p)
}
