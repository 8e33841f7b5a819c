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
	var out buffer
	o := &output{to: &out, size: func(io.Writer) (int, int, bool) { return 0, 0, false }}
	v := &lineView{out: o, errs: o}
	for i := range 1000 {
		v.show(ipc.Event{Service: "db", Event: ipc.EventProgress, Message: "pulling postgres:16", Current: int64(i)}, nil)
	}
	v.show(ipc.Event{Service: "db", Event: ipc.EventProgress, Message: "unpacking"}, nil)
	if got := out.String(); got != "db: pulling postgres:16\ndb: unpacking\n" {
		t.Errorf("got %q", got)
	}
}
