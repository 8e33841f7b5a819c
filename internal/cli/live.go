package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/locald/locald/ipc"
)

// redraw is how often the live view moves.
const redraw = 100 * time.Millisecond

var spinner = [...]string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// liveView keeps one line a service, and below it one a layer of the image that
// it waits for, and paints them again in place. It uses
// nothing of the terminal but moving up and erasing, and leaves the cursor
// below its lines after every write, so that there is nothing to restore.
type liveView struct {
	out, errs *output
	paint     paint
	now       func() time.Time

	mu     sync.Mutex
	rows   []*liveRow
	turn   int
	drawn  []int // columns of each line on the screen
	closed bool
	stop   chan struct{}
	ticks  sync.WaitGroup
}

// liveRow is the last that is known of a service.
type liveRow struct {
	last  ipc.Event
	pull  pulled // while an image is on its way
	begun time.Time
	ended time.Time // zero while it goes on
}

func newLiveView(out, errs *output, p paint, now func() time.Time) *liveView {
	v := &liveView{out: out, errs: errs, paint: p, now: now, stop: make(chan struct{})}
	v.ticks.Go(func() {
		ticker := time.NewTicker(redraw)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				v.tick()
			case <-v.stop:
				return
			}
		}
	})
	return v
}

func (v *liveView) tick() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.turn++
	v.draw("")
}

func (v *liveView) show(e ipc.Event, _ []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	if e.Service == "" || e.Event == ipc.EventNote {
		if e.Event == ipc.EventNote {
			v.draw(eventText(e, v.paint) + "\n")
		}
		return
	}
	row := v.row(e.Service)
	first := len(row.last.Event) == 0
	if e.Event == ipc.EventProgress {
		if row.pull.hear(e, v.now()) {
			v.draw(eventText(e, v.paint) + "\n")
		}
		if e.Layer != "" {
			return
		}
	} else {
		row.pull = pulled{}
	}
	row.last = e
	row.ended = time.Time{}
	if finished(e.Event) {
		row.ended = v.now()
	}
	switch {
	case e.Event == ipc.EventFailed:
		v.erase()
		v.errs.say(failureText(e))
		v.draw("")
	case e.Event == ipc.EventStopping && e.Message != "":
		v.draw(eventText(e, v.paint) + "\n")
	case hintText(e) != "":
		v.draw(hintText(e))
	case first:
		v.draw("")
	}
}

func (v *liveView) row(service string) *liveRow {
	for _, r := range v.rows {
		if r.last.Service == service {
			return r
		}
	}
	r := &liveRow{begun: v.now()}
	v.rows = append(v.rows, r)
	return r
}

func finished(event string) bool {
	switch event {
	case ipc.EventHealthy, ipc.EventCompleted, ipc.EventFailed, ipc.EventStopped:
		return true
	}
	return false
}

func (v *liveView) close() {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return
	}
	v.closed = true
	v.erase()
	close(v.stop)
	v.mu.Unlock()
	v.ticks.Wait()
}

// erase takes the lines off the screen.
func (v *liveView) erase() {
	columns, _, _ := v.out.terminal()
	if up := v.home(columns); up != "" {
		v.out.say(up + "\x1b[J")
	}
	v.drawn = nil
}

// home moves to the first of the lines on the screen, which may have been
// narrowed since they were drawn and then take more rows.
func (v *liveView) home(columns int) string {
	up := rowsOf(v.drawn, columns)
	if up == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA", up)
}

// rowsOf is how many rows of a terminal lines of those widths take.
func rowsOf(widths []int, columns int) int {
	rows := 0
	for _, w := range widths {
		rows += max(1, (w+columns-1)/max(columns, 1))
	}
	return rows
}

// draw paints the lines again, in one write, below text that stays.
func (v *liveView) draw(text string) {
	if v.closed {
		return
	}
	columns, rows, _ := v.out.terminal()
	var b strings.Builder
	b.WriteString(v.home(columns))
	if text != "" {
		b.WriteString("\x1b[J" + text)
	}
	v.drawn = v.drawn[:0]
	for _, l := range v.frame(columns, rows) {
		b.WriteString(l.text + "\x1b[K\n")
		v.drawn = append(v.drawn, l.columns)
	}
	b.WriteString("\x1b[J")
	v.out.say(b.String())
}

// liveLine is one line of a frame, and how many columns it takes.
type liveLine struct {
	text    string
	columns int
}

// frame is the lines for a terminal of that size: those of services that are
// not finished first to stay, when there are too many.
func (v *liveView) frame(columns, rows int) []liveLine {
	name := 0
	for _, r := range v.rows {
		name = max(name, columnsOf(cell(r.last.Service)))
	}
	name = min(name, max(columns/3, 8))
	room := max(rows-1, 1)
	shown := v.rows
	if len(shown) > room {
		shown = important(v.rows, room-1)
	}
	var pulls []*pulled
	for _, r := range shown {
		pulls = append(pulls, &r.pull)
	}
	var lines []liveLine
	layers := fold(pulls, room-min(room, len(v.rows)))
	for _, r := range shown {
		lines = append(lines, v.line(r, name, columns-1))
		for _, l := range r.pull.layers {
			if layers[l] {
				lines = append(lines, l.line(v.paint, columns-1))
			}
		}
	}
	if hidden := len(v.rows) - len(shown); hidden > 0 {
		text := clip(fmt.Sprintf("  and %d more", hidden), columns-1)
		lines = append(lines, liveLine{v.paint.as(dim, text), columnsOf(text)})
	}
	return lines
}

// important is n of the rows, in their order, leaving out finished ones first.
func important(rows []*liveRow, n int) []*liveRow {
	drop := len(rows) - n
	var kept []*liveRow
	for _, r := range rows {
		if drop > 0 && !r.ended.IsZero() {
			drop--
			continue
		}
		kept = append(kept, r)
	}
	return kept[:min(len(kept), max(n, 0))]
}

// line is a service in at most limit columns: mark, name, what it does, and
// for how long, which is left out when there is no room.
func (v *liveView) line(r *liveRow, name, limit int) liveLine {
	e := r.last
	mark, colour := spinner[v.turn%len(spinner)], yellow
	until := r.ended
	switch {
	case e.Event == ipc.EventFailed:
		mark, colour = "✗", red
	case e.Event == ipc.EventStopped:
		mark, colour = "·", dim
	case !until.IsZero():
		mark, colour = "✓", green
	default:
		until = v.now()
	}
	took := elapsed(until.Sub(r.begun))
	left := " " + pad(clip(cell(e.Service), name), name) + "  "
	room := limit - 1 - columnsOf(left) - 2 - columnsOf(took)
	if room < 12 {
		took = ""
		room = limit - 1 - columnsOf(left)
	}
	text := r.text(max(room, 0))
	right := ""
	if took != "" {
		right = "  " + v.paint.as(dim, took)
	}
	width := 1 + columnsOf(left) + columnsOf(text)
	if took != "" {
		width += 2 + columnsOf(took)
	}
	return liveLine{v.paint.as(colour, mark) + left + text + right, width}
}

// text is what a service does at the moment, in at most room columns.
func (r *liveRow) text(room int) string {
	word, message := eventWord(r.last.Event), cell(r.last.Message)
	switch {
	case r.last.Event == ipc.EventProgress && message != "":
		return r.pull.text(r.last, room)
	case message == "":
		return clip(word, room)
	}
	return clip(word+": "+message, room)
}

// elapsed is a time in at most six columns.
func elapsed(d time.Duration) string {
	switch {
	case d < 0:
		return "0.0s"
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000*1000:
		return fmt.Sprintf("%.1f kB", float64(n)/1000)
	case n < 1000*1000*1000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}
