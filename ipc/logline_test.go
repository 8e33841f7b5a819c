package ipc

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func TestLogLinesAreTheSameEitherWay(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.UTC)
	texts := []string{
		"", "plain", `"quoted"`, `back\slash`, "tab\t", "nul\x00", "caf\u00e9", "\u2028", "<&>", `"}`, `","line":"`, "}\n", "\x7f", "\x1b[31m", "\uFFFD",
	}
	for i, text := range texts {
		for _, l := range []LogLine{
			{Seq: 1, Time: at, Service: "web", Run: 2, Stream: "stdout", Line: text},
			{Seq: 18446744073709551615, Time: at.Truncate(time.Second), Service: text, Run: -1, Stream: "gap", MissingBytes: 7},
			{Time: at.In(time.FixedZone("", 5400)), Line: text, Partial: true, B64: []byte(text)},
			{Time: time.Time{}, Stream: text, Line: texts[len(texts)-1-i], Partial: true},
		} {
			slow, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			got, err := encode(l)
			if err != nil {
				t.Fatal(err)
			}
			var whole, back, want LogLine
			if err := json.Unmarshal(got, &whole); err != nil {
				t.Fatalf("%s: %v", got, err)
			}
			if err := json.Unmarshal(slow, &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(whole, want) {
				t.Errorf("written: got %s, want %s", got, slow)
			}
			if parseLogLine(got, &back) && !same(back, want) {
				t.Errorf("read: got %+v, want %+v", back, want)
			}
		}
	}
}

// same compares times as moments: their zones have no identity.
func same(a, b LogLine) bool {
	if !a.Time.Equal(b.Time) {
		return false
	}
	a.Time, b.Time = time.Time{}, time.Time{}
	return reflect.DeepEqual(a, b)
}

func FuzzLogLine(f *testing.F) {
	f.Add([]byte(`{"seq":1,"time":"2026-11-23T10:00:00Z","service":"web","run":1,"stream":"stdout","line":"x"}` + "\n"))
	f.Add([]byte(`{"seq":1,"time":"2026-11-23T10:00:00Z","service":"we"b","run":1,"stream":"stdout","line":"x","line":"y"}` + "\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var fast, slow LogLine
		if !parseLogLine(line, &fast) {
			return
		}
		// What is read here is either what encoding/json reads or, from a
		// daemon that is not ours, not JSON at all.
		if err := json.Unmarshal(line, &slow); err == nil && !same(fast, slow) {
			t.Errorf("%q: got %+v, want %+v", line, fast, slow)
		}
	})
}
