package logs

import (
	"testing"
	"unicode/utf8"
)

func TestSafeShowsWhatWouldCommandATerminal(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P13 F58 S20")
	for in, want := range map[string]string{
		"plain text\twith a tab":       "plain text\twith a tab",
		"größer → 日本 👩‍👩‍👧":            "größer → 日本 👩‍👩‍👧",
		"\x1b[31mred\x1b[0m":           "\x1b[31mred\x1b[0m",
		"\x1b[1;38;5;8mgrey":           "\x1b[1;38;5;8mgrey\x1b[0m",
		"\x1b[38;2;8;8;8mdark\x1b[m":   "\x1b[38;2;8;8;8mdark\x1b[m",
		"\x1b[8mhidden":                `\x1b[8mhidden`,
		"\x1b[31;8mhidden":             `\x1b[31;8mhidden`,
		"\x1b[38;5;1;8mhidden":         `\x1b[38;5;1;8mhidden`,
		"\x1b]0;title\x07":             `\x1b]0;title\x07`,
		"\x1b]52;c;ZWNobyBoaQ==\x1b\\": `\x1b]52;c;ZWNobyBoaQ==\x1b\`,
		"\x1b[2J\x1b[H":                `\x1b[2J\x1b[H`,
		"\x1bP1$q\x1b\\":               `\x1bP1$q\x1b\`,
		"\x1b[31":                      `\x1b[31`,
		"\u009b2J":                     `\u009b2J`,
		"\x9b2J":                       `\x9b2J`,
		"a\x00b\x7fc":                  `a\x00b\x7fc`,
		"\xff\xfe":                     `\xff\xfe`,
		"admin\u202etxt.exe":           `admin\u202etxt.exe`,
		"\U000e0041":                   `\U000e0041`,
		"a\u2028b":                     `a\u2028b`,
		"10 %\r20 %\r30 %":             "30 %",
		"windows\r":                    "windows",
		"":                             "",
		"\x1b[0000000000000000000000000000000000000000000000000000000000000000000000m": `\x1b[0000000000000000000000000000000000000000000000000000000000000000000000m`,
	} {
		got := Safe([]byte(in))
		if got != want {
			t.Errorf("Safe(%q) = %q, want %q", in, got, want)
		}
		if !utf8.ValidString(got) {
			t.Errorf("Safe(%q) is not UTF-8", in)
		}
	}
}
