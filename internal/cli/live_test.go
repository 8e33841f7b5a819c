package cli

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/ipc"
)

// still is a live view without a clock: tick and draw are the test's.
func still(columns, rows int, now *time.Time) (*liveView, *buffer) {
	var screen buffer
	out := &output{to: &screen, size: func(io.Writer) (int, int, bool) { return columns, rows, true }}
	v := &liveView{out: out, errs: out, now: func() time.Time { return *now }, stop: make(chan struct{})}
	return v, &screen
}

func bootEvents() []ipc.Event {
	return []ipc.Event{
		{Service: "web", Event: ipc.EventPending, Message: "waits for db, migrate"},
		{Service: "db", Event: ipc.EventProgress, Message: "pulling registry.example.com/team/postgres:16", Current: 12345678, Total: 50 << 20},
		{Service: "cache", Event: ipc.EventHealthy, Message: "redis://127.0.0.1:40001"},
		{Service: "migrate", Event: ipc.EventCompleted},
		{Service: "a-service-with-a-long-name", Event: ipc.EventStarting, Message: "\x1b[2Jfirst\nsecond"},
		{Service: "日本語", Event: ipc.EventStarted},
		{Service: "bad", Event: ipc.EventFailed, Message: "exited with 1"},
		{Service: "old", Event: ipc.EventStopped},
	}
}

func TestLiveFrames(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for _, size := range [][2]int{{80, 24}, {40, 24}, {20, 24}, {80, 5}} {
		now := fixedNow
		v, _ := still(size[0], size[1], &now)
		for i, e := range bootEvents() {
			now = fixedNow.Add(time.Duration(i) * 700 * time.Millisecond)
			v.show(e, nil)
		}
		now = fixedNow.Add(65 * time.Second)
		fmt.Fprintf(&text, "%d columns, %d rows\n", size[0], size[1])
		frame := v.frame(size[0], size[1])
		for _, l := range frame {
			text.WriteString(l.text + "\n")
			if got := columnsOf(l.text); got >= size[0] || got != l.columns {
				t.Errorf("%q takes %d columns of %d and claims %d", l.text, got, size[0], l.columns)
			}
		}
		if len(frame) >= size[1] {
			t.Errorf("%d lines on %d rows", len(frame), size[1])
		}
		text.WriteString("\n")
	}
	golden(t, "live.golden", text.String())
}

func TestALiveViewLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	now := fixedNow
	v, out := still(80, 24, &now)
	v.show(ipc.Event{Service: "web", Event: ipc.EventStarting}, nil)
	v.show(ipc.Event{Service: "db", Event: ipc.EventStarting}, nil)
	v.tick()
	v.show(ipc.Event{Event: ipc.EventNote, Message: "a note that stays"}, nil)
	v.show(ipc.Event{Service: "web", Event: ipc.EventFailed, Message: "exited with 1", Lines: []ipc.LogLine{{Stream: "stderr", Line: "oh no"}}}, nil)
	v.tick()
	v.close()
	v.show(ipc.Event{Service: "web", Event: ipc.EventStarting}, nil)
	got := screenAfter(out.String(), 80)
	if want := "a note that stays\nlocald: web: exited with 1\nweb │ oh no\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if strings.Contains(out.String(), "\x1b[?") {
		t.Error("the view sets modes of the terminal that somebody would have to restore")
	}
}

// screenAfter is what a terminal shows after text: enough of one for what the
// live view uses, which fails the reader's eye on anything else.
func screenAfter(text string, columns int) string {
	rows, row, col := []string{""}, 0, 0
	for len(text) > 0 {
		var n int
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			rows = append(rows[:row], clip(rows[row], col))
			text = text[3:]
		case strings.HasPrefix(text, "\x1b[K"):
			rows[row] = clip(rows[row], col)
			text = text[3:]
		case strings.HasPrefix(text, "\x1b["):
			if _, err := fmt.Sscanf(text, "\x1b[%dA", &n); err != nil {
				return "unexpected sequence " + fmt.Sprintf("%q", text[:min(len(text), 10)])
			}
			row = max(row-n, 0)
			text = text[strings.IndexByte(text, 'A')+1:]
		case text[0] == '\r':
			col, text = 0, text[1:]
		case text[0] == '\n':
			row, col, text = row+1, 0, text[1:]
			if row == len(rows) {
				rows = append(rows, "")
			}
		default:
			end := strings.IndexAny(text, "\x1b\r\n")
			if end < 0 {
				end = len(text)
			}
			old := []rune(rows[row])
			written := []rune(text[:end])
			if len(old) < col+len(written) {
				old = append(old, []rune(strings.Repeat(" ", col+len(written)-len(old)))...)
			}
			copy(old[col:], written)
			rows[row], col, text = string(old), col+len(written), text[end:]
			if col > columns {
				return "a line is wider than the terminal"
			}
		}
	}
	return strings.Join(rows, "\n")
}

func TestProgressFillsNoLog(t *testing.T) {
	t.Parallel()
	now := fixedNow
	var out buffer
	o := &output{to: &out, size: func(io.Writer) (int, int, bool) { return 0, 0, false }}
	v := &lineView{out: o, errs: o, now: func() time.Time { return now }, progress: seldom{every: 5 * time.Second}}
	say := func(e ipc.Event) {
		e.Service, e.Event, e.Total = "db", ipc.EventProgress, 50e6
		v.show(e, nil)
	}
	for i := range 70 { // seven seconds
		now = fixedNow.Add(time.Duration(i) * time.Second / 10)
		say(ipc.Event{Message: "pulling postgres:16", Current: int64(i) * 1e5})
		say(ipc.Event{Message: "pulling postgres:16", Layer: "4f4fb700ef54", Phase: "downloading", Current: int64(i) * 1e5})
		if i == 65 {
			say(ipc.Event{Message: "pulling postgres:16: layer 4f4fb700ef54: the connection broke off; trying again", Phase: "retrying", Current: 65e5})
		}
	}
	say(ipc.Event{Message: "unpacking postgres:16", Current: 1e6})
	want := "db: pulling postgres:16 0 B/50.0 MB\ndb: pulling postgres:16 5.0 MB/50.0 MB\n" +
		"db: pulling postgres:16: layer 4f4fb700ef54: the connection broke off; trying again\ndb: unpacking postgres:16 1.0 MB/50.0 MB\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestProgressAsJSONIsSeldomAndTellsEachPhase(t *testing.T) {
	t.Parallel()
	now := fixedNow
	var out buffer
	v := &rawView{out: &output{to: &out}, now: func() time.Time { return now }, progress: seldom{every: 2 * time.Second}}
	for i := range 50 {
		now = fixedNow.Add(time.Duration(i) * time.Second / 10)
		for _, layer := range []string{"", "4f4fb700ef54"} {
			v.show(ipc.Event{Service: "db", Event: ipc.EventProgress, Layer: layer, Phase: "downloading"}, fmt.Appendf(nil, "%q %d\n", layer, i))
		}
	}
	v.show(ipc.Event{Service: "db", Event: ipc.EventProgress, Layer: "4f4fb700ef54", Phase: "done"}, []byte("done\n"))
	v.show(ipc.Event{Service: "db", Event: ipc.EventHealthy}, []byte("healthy\n"))
	want := `"" 0
"4f4fb700ef54" 0
"" 20
"4f4fb700ef54" 20
"" 40
"4f4fb700ef54" 40
done
healthy
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// pullEvents are two images on their way, one of them for two services, with a
// layer in each phase.
func pullEvents() []ipc.Event {
	const large, small = "pulling registry.example.com/team/postgres:16", "pulling redis:7"
	layer := func(service, message, id, phase string, current, total int64) ipc.Event {
		return ipc.Event{Service: service, Event: ipc.EventProgress, Message: message, Layer: id, Phase: phase, Current: current, Total: total}
	}
	events := []ipc.Event{
		{Service: "web", Event: ipc.EventPending, Message: "waits for db"},
		layer("db", large, "", "", 12e6, 50e6),
	}
	for i, l := range []struct {
		phase          string
		current, total int64
	}{
		{"done", 4e6, 4e6},
		{"unpacking", 0, 0},
		{"unpacking", 1e6, 3e6},
		{"downloading", 6.2e6, 12e6},
		{"downloading", 123, 0},
		{"retrying", 5e6, 20e6},
		{"downloaded", 2e6, 2e6},
		{"waiting", 0, 9e6},
		{"waiting", 0, 0},
		{"done", 1e6, 1e6},
	} {
		events = append(events, layer("db", large, fmt.Sprintf("%012x", 0xa0+i), l.phase, l.current, l.total))
	}
	return append(events,
		layer("cache", small, "", "", 1e6, 8e6), layer("cache", small, "0000000000c0", "downloading", 1e6, 8e6),
		layer("queue", small, "", "", 1e6, 8e6), layer("queue", small, "0000000000c0", "downloading", 1e6, 8e6),
		layer("queue", small, "0000000000a7", "downloading", 2e6, 9e6), // the same that db waits for
	)
}

func TestLayerFrames(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for _, size := range [][2]int{{100, 30}, {80, 24}, {80, 12}, {60, 9}, {40, 24}, {20, 24}, {80, 5}, {80, 4}, {80, 2}} {
		now := fixedNow
		v, _ := still(size[0], size[1], &now)
		for _, e := range pullEvents() {
			v.show(e, nil)
		}
		now = fixedNow.Add(2 * time.Second)
		for _, service := range []string{"db", "cache"} {
			v.show(ipc.Event{Service: service, Event: ipc.EventProgress, Message: v.row(service).last.Message, Current: 20e6, Total: 50e6}, nil)
		}
		fmt.Fprintf(&text, "%d columns, %d rows\n", size[0], size[1])
		frame := v.frame(size[0], size[1])
		for _, l := range frame {
			text.WriteString(l.text + "\n")
			if got := columnsOf(l.text); got >= size[0] || got != l.columns {
				t.Errorf("%q takes %d columns of %d and claims %d", l.text, got, size[0], l.columns)
			}
		}
		if len(frame) >= size[1] {
			t.Errorf("%d lines on %d rows", len(frame), size[1])
		}
		text.WriteString("\n")
	}
	golden(t, "layers.golden", text.String())
}

func TestLayersGoWhenTheImageIsThere(t *testing.T) {
	t.Parallel()
	now := fixedNow
	v, out := still(80, 24, &now)
	for _, e := range pullEvents() {
		v.show(e, nil)
	}
	const trouble = "pulling registry.example.com/team/postgres:16: layer 0000000000a5: the connection broke off; trying again"
	for range 3 {
		v.show(ipc.Event{Service: "db", Event: ipc.EventProgress, Phase: "retrying", Message: trouble}, nil)
	}
	for _, service := range []string{"db", "cache", "queue"} {
		v.show(ipc.Event{Service: service, Event: ipc.EventStarting}, nil)
	}
	v.tick()
	if frame := v.frame(80, 24); len(frame) != 4 {
		t.Errorf("%d lines; want one a service: %v", len(frame), frame)
	}
	v.close()
	if got, want := out.String(), "db: "+trouble+"\n"; strings.Count(got, want) != 1 {
		t.Errorf("%q is there %d times; want it once, to stay", want, strings.Count(got, want))
	}
}
