package cli

import (
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"

	"github.com/locald/locald/internal/logs"
)

// terminalSize asks the system about a file; what cannot be asked is no
// terminal.
func terminalSize(w io.Writer) (columns, rows int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, 0, false
	}
	columns, rows, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 || rows <= 0 {
		return 80, 24, true
	}
	return columns, rows, true
}

// plain reports whether the environment asks for output that stays as it was
// printed: no colours, nothing repainted.
func (a *app) plain() bool {
	ci := a.getenv("CI")
	return a.getenv("NO_COLOR") != "" || a.getenv("TERM") == "dumb" || (ci != "" && ci != "false" && ci != "0")
}

// live reports whether lines may be repainted on o.
func (a *app) live(o *output) bool {
	_, _, terminal := o.terminal()
	return terminal && !a.plain() && a.global.color != "never"
}

// paint is how text on o is coloured.
func (a *app) paint(o *output) paint {
	_, _, terminal := o.terminal()
	switch a.global.color {
	case "always":
		return true
	case "never":
		return false
	}
	return paint(terminal && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb")
}

// paint puts text into colours, or leaves it alone when false.
type paint bool

// Select Graphic Rendition parameters.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// serviceColours tell services apart. Red is left out: it means failure.
var serviceColours = [...]string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}

func (p paint) as(colour, text string) string {
	if !p || colour == "" || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// state is the colour of a service's state.
func (p paint) state(state string) string {
	switch state {
	case "running", "completed", "healthy":
		return green
	case "failed", "unhealthy":
		return red
	case "stopped":
		return dim
	}
	return yellow
}

// safe is text that came from a file or an error, made harmless for a
// terminal. It may have several lines.
func safe(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r", `\x0d`), "\n")
	for i, line := range lines {
		lines[i] = logs.Safe([]byte(line))
	}
	return strings.Join(lines, "\n")
}

// cell is text made harmless, on one line and without colours of its own.
func cell(text string) string {
	if isPrintable(text) {
		return text
	}
	return safe(onOneLine.Replace(text))
}

// isPrintable reports whether a text is ASCII without control characters, as
// almost all of a table is.
func isPrintable(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// onOneLine is made once: a table of many rows would spend most of its time here.
var onOneLine = strings.NewReplacer("\n", " ", "\t", " ", "\x1b", `\x1b`)

// columnsOf is how many columns of a terminal the text takes. It knows no
// escape sequences.
func columnsOf(text string) int {
	if isPrintable(text) {
		return len(text)
	}
	n := 0
	for _, r := range text {
		n += runeColumns(r)
	}
	return n
}

// withoutColours is a line of ours without the colour sequences in it.
func withoutColours(line string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(line, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, line, _ = strings.Cut(after, "m")
	}
}

func runeColumns(r rune) int {
	switch {
	case r < 0x20 || r == 0x7f:
		return 0
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// clip is text in at most limit columns, with an ellipsis where it was cut.
func clip(text string, limit int) string {
	if columnsOf(text) <= limit {
		return text
	}
	if limit <= 0 {
		return ""
	}
	room := limit - 1
	for i, r := range text {
		if room -= runeColumns(r); room < 0 {
			return text[:i] + "…"
		}
	}
	return text
}

// pad is text filled up with blanks to so many columns.
func pad(text string, columns int) string {
	return text + strings.Repeat(" ", max(0, columns-columnsOf(text)))
}

// hue gives every service a colour of its own, in the order of first sight.
type hue struct {
	names []string
}

func (h *hue) of(service string) string {
	i := slices.Index(h.names, service)
	if i < 0 {
		i = len(h.names)
		h.names = append(h.names, service)
	}
	return serviceColours[i%len(serviceColours)]
}
