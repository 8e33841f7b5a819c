package logs

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Safe is a line as it can be shown on a terminal: valid UTF-8 that cannot
// move the cursor, set the title, reach the clipboard or otherwise command the
// terminal. Only colours and tabs pass; other control characters, bytes that
// are not UTF-8 and characters that reorder text appear as "\x1b" or "\u202e".
// Of a line that redraws itself with carriage returns the last state is shown.
func Safe(line []byte) string {
	line = redrawn(line)
	if plain(line) {
		return string(line)
	}
	var b strings.Builder
	b.Grow(len(line) + 16)
	coloured := false
	for len(line) > 0 {
		if n := colour(line); n > 0 {
			sequence := line[:n]
			coloured = string(sequence) != "\x1b[m" && string(sequence) != "\x1b[0m"
			b.Write(sequence)
			line = line[n:]
			continue
		}
		r, size := utf8.DecodeRune(line)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, line[0])
		case r == '\t' || harmless(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		line = line[size:]
	}
	if coloured {
		b.WriteString("\x1b[0m") // it must not reach the next line
	}
	return b.String()
}

// redrawn is what a terminal would show last of a line with carriage returns.
func redrawn(line []byte) []byte {
	for len(line) > 0 && line[len(line)-1] == '\r' {
		line = line[:len(line)-1]
	}
	for i := len(line) - 1; i >= 0; i-- {
		if line[i] == '\r' {
			return line[i+1:]
		}
	}
	return line
}

func plain(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' || c > '~' {
			return false
		}
	}
	return true
}

// harmless reports whether a terminal does nothing with r but draw it. Joiners
// of emoji and of scripts are drawn; marks that change the direction of what
// follows are not.
func harmless(r rune) bool {
	switch r {
	case 0x200c, 0x200d:
		return true
	case 0x2028, 0x2029:
		return false
	}
	return !unicode.In(r, unicode.Cc, unicode.Cf)
}

// colour is the length of the colour sequence (SGR) that b begins with, or 0.
func colour(b []byte) int {
	const longest = 64
	if len(b) < 3 || b[0] != 0x1b || b[1] != '[' {
		return 0
	}
	for i := 2; i < len(b) && i < longest; i++ {
		switch c := b[i]; {
		case c >= '0' && c <= '9' || c == ';' || c == ':':
		case c == 'm' && visible(string(b[2:i])):
			return i + 1
		default:
			return 0
		}
	}
	return 0
}

// visible reports whether the parameters of a colour sequence leave the text
// to be seen.
func visible(parameters string) bool {
	list := strings.Split(parameters, ";")
	for i := 0; i < len(list); i++ {
		switch number, _, _ := strings.Cut(list[i], ":"); strings.TrimLeft(number, "0") {
		case "8":
			return false
		case "38", "48", "58": // a colour follows: 5 and an index, or 2 and three parts
			if i+1 < len(list) && list[i] == number {
				switch list[i+1] {
				case "5":
					i += 2
				case "2":
					i += 4
				}
			}
		}
	}
	return true
}
