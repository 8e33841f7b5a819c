package cli

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/locald/locald/ipc"
)

var colours = regexp.MustCompile("\x1b\\[[0-9;:]*m")

// FuzzShown prints any text in the places that text from outside has: a cell of
// a table, a sentence, a line of a log and the name before it. Nothing of it
// commands the terminal, and a cell is one line.
func FuzzShown(f *testing.F) {
	for _, s := range []string{"web", "\x1b]0;title\x07", "a\nb\r\n", "\x1b[31mred", "\x9b2J\u009b2J", "\u202etxt.exe", "\t", "\x00", "日本 👩‍👩‍👧"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for where, shown := range map[string]string{
			"a cell": cell(text), "a sentence": safe(text),
			"a line": lineText(ipc.LogLine{Stream: "stdout", Line: text}), "an event": lineText(ipc.LogLine{Stream: "event", Line: text}),
			"a gap": lineText(ipc.LogLine{Stream: "gap", Line: text, MissingBytes: 7}),
		} {
			if !utf8.ValidString(shown) {
				t.Errorf("%s of %q is %q, which is not UTF-8", where, text, shown)
			}
			if where == "a cell" && strings.ContainsAny(shown, "\x1b\n\t") {
				t.Errorf("a cell of %q is %q", text, shown)
			}
			rest := colours.ReplaceAllString(shown, "")
			if where == "a sentence" { // which may have several lines
				rest = strings.ReplaceAll(rest, "\n", "")
			}
			for _, r := range rest {
				if unicode.IsControl(r) && r != '\t' || unicode.In(r, unicode.Bidi_Control) {
					t.Errorf("%s of %q is %q, with %U in it", where, text, shown, r)
				}
			}
		}
	})
}
