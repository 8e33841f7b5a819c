package ipc

import (
	"bytes"
	"strconv"
	"time"
)

// Log lines come by the million, and nearly all of them are printable ASCII.
// Those are written and read here without encoding/json; everything else goes
// its way. Both ways give the same bytes and values.

// appendLogLine appends l as encode would write it; ok is false when
// encoding/json has to.
func appendLogLine(b []byte, l *LogLine) (_ []byte, ok bool) {
	if !verbatim(l.Service) || !verbatim(l.Stream) || !verbatim(l.Line) || len(l.B64) > 0 {
		return b, false
	}
	if year := l.Time.Year(); year < 1 || year > 9999 {
		return b, false
	}
	b = append(b, `{"seq":`...)
	b = strconv.AppendUint(b, l.Seq, 10)
	b = append(b, `,"time":"`...)
	b = l.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","service":"`...)
	b = append(b, l.Service...)
	b = append(b, `","run":`...)
	b = strconv.AppendInt(b, int64(l.Run), 10)
	b = append(b, `,"stream":"`...)
	b = append(b, l.Stream...)
	b = append(b, `","line":"`...)
	b = append(b, l.Line...)
	b = append(b, '"')
	if l.Partial {
		b = append(b, `,"partial":true`...)
	}
	if l.MissingBytes != 0 {
		b = append(b, `,"missing_bytes":`...)
		b = strconv.AppendInt(b, l.MissingBytes, 10)
	}
	return append(b, "}\n"...), true
}

// verbatim reports whether JSON has s as it is.
func verbatim(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// parseLogLine reads what appendLogLine writes; ok is false when it is
// something else, and l is then in no particular state.
func parseLogLine(line []byte, l *LogLine) (ok bool) {
	for _, c := range line {
		if c == '\\' || c > '~' {
			return false // without escapes every quote ends a string
		}
	}
	rest := line
	seq := field(&rest, `{"seq":`, `,"time":"`)
	at := field(&rest, "", `","service":"`)
	service := field(&rest, "", `","run":`)
	run := field(&rest, "", `,"stream":"`)
	stream := field(&rest, "", `","line":"`)
	text := field(&rest, "", `"}`)
	if rest == nil || string(rest) != "\n" {
		return false
	}
	for _, s := range [][]byte{at, service, stream, text} {
		if bytes.IndexByte(s, '"') >= 0 {
			return false
		}
	}
	number, err1 := strconv.ParseUint(string(seq), 10, 64)
	attempt, err2 := strconv.Atoi(string(run))
	moment, err3 := time.Parse(time.RFC3339Nano, string(at))
	if err1 != nil || err2 != nil || err3 != nil {
		return false
	}
	*l = LogLine{Seq: number, Time: moment, Service: string(service), Run: attempt, Stream: string(stream), Line: string(text)}
	return true
}

// field takes before and what comes up to after off the front of rest. rest is
// nil once something was not there.
func field(rest *[]byte, before, after string) []byte {
	value, found := bytes.CutPrefix(*rest, []byte(before))
	if !found || *rest == nil {
		*rest = nil
		return nil
	}
	value, *rest, found = bytes.Cut(value, []byte(after))
	if !found {
		*rest = nil
	}
	return value
}
