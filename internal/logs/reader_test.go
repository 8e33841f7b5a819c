package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// epoch is when the store of many begins; each of its reads comes a second
// after the one before.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// many is a store of four runs of a hundred lines in several segments, each run
// with 90 lines to stdout, 10 to stderr and an event.
func many(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	w := open(t, dir, Limits{SegmentBytes: 1500})
	second := 0
	for run := 1; run <= 4; run++ {
		out, errs := w.Input(run, Stdout), w.Input(run, Stderr)
		for i := range 10 {
			second++
			at := epoch.Add(time.Duration(second) * time.Second)
			var b strings.Builder
			for j := range 9 {
				fmt.Fprintf(&b, "run %d out %d.%d\n", run, i, j)
			}
			if err := errors.Join(out.Append([]byte(b.String()), at), errs.Append(fmt.Appendf(nil, "run %d err %d\n", run, i), at)); err != nil {
				t.Fatal(err)
			}
		}
		closeAll(t, out, errs)
		if err := w.Event(run, fmt.Sprintf("run %d ended", run), epoch.Add(time.Duration(second)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	closeAll(t, w)
	return dir
}

func TestQueriesAgreeWithReadingEverything(t *testing.T) {
	t.Parallel()
	dir := many(t)
	everything := read(t, dir, all)
	if len(everything) != 404 {
		t.Fatalf("%d lines", len(everything))
	}
	expectContiguous(t, everything)
	at := func(second int) time.Time { return epoch.Add(time.Duration(second) * time.Second) }
	for name, test := range map[string]struct {
		q    Query
		want func(Line) bool
	}{
		"after":           {Query{After: 250}, func(l Line) bool { return l.Seq > 250 }},
		"after the end":   {Query{After: 404}, func(Line) bool { return false }},
		"stderr":          {Query{Stream: Stderr}, func(l Line) bool { return l.Stream == Stderr }},
		"events":          {Query{Stream: Event}, func(l Line) bool { return l.Stream == Event }},
		"one run":         {Query{FromRun: 2, ToRun: 2}, func(l Line) bool { return l.Run == 2 }},
		"last runs":       {Query{FromRun: 3}, func(l Line) bool { return l.Run >= 3 }},
		"since":           {Query{Since: at(25)}, func(l Line) bool { return !l.Time.Before(at(25)) }},
		"until":           {Query{Until: at(5)}, func(l Line) bool { return l.Time.Before(at(5)) }},
		"between":         {Query{Since: at(3), Until: at(12), Stream: Stdout}, func(l Line) bool { return !l.Time.Before(at(3)) && l.Time.Before(at(12)) && l.Stream == Stdout }},
		"literal":         {Query{Grep: regexp.MustCompile(`out 7\.3`)}, func(l Line) bool { return bytes.Contains(l.Data, []byte("out 7.3")) }},
		"anchored":        {Query{Grep: regexp.MustCompile(`^run [24] err \d$`)}, func(l Line) bool { return l.Stream == Stderr && l.Run%2 == 0 }},
		"alternatives":    {Query{Grep: regexp.MustCompile(`err 1|ended`)}, func(l Line) bool { return bytes.Contains(l.Data, []byte("err 1")) || l.Stream == Event }},
		"any case":        {Query{Grep: regexp.MustCompile(`(?i)ERR 4`)}, func(l Line) bool { return bytes.Contains(l.Data, []byte("err 4")) }},
		"grep after":      {Query{Grep: regexp.MustCompile(`err`), After: 200}, func(l Line) bool { return l.Stream == Stderr && l.Seq > 200 }},
		"all":             {Query{}, func(Line) bool { return true }},
		"nothing matches": {Query{Grep: regexp.MustCompile(`nowhere`)}, func(Line) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want []Line
			for _, l := range everything {
				if test.want(l) {
					want = append(want, l)
				}
			}
			for _, tail := range []int{-1, 0, 1, 7, 100, 403, 404, 1000} {
				q := test.q
				q.Tail = tail
				expect := want
				if tail >= 0 {
					expect = want[max(0, len(want)-tail):]
				}
				if got := read(t, dir, q); texts(got) != texts(expect) {
					t.Errorf("tail %d: got\n%swant\n%s", tail, texts(got), texts(expect))
				}
				q.Output = true
				var copied, output bytes.Buffer
				for _, l := range read(t, dir, q) {
					fmt.Fprintf(&output, "%s\n", l.Data)
				}
				if err := OpenReader(dir).Copy(t.Context(), q, false, &copied); err != nil || copied.String() != output.String() {
					t.Errorf("tail %d: %v, copied\n%swant\n%s", tail, err, &copied, &output)
				}
			}
		})
	}
}

func TestLastLinesOfARunLeaveEventsOut(t *testing.T) {
	t.Parallel()
	dir := many(t)
	lines, err := Last(dir, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	expectText(t, lines, "301 stdout#3 run 3 out 9.8\n302 stderr#3 run 3 err 9\n")
}

func TestReadEndsWithItsContextAndWithEmit(t *testing.T) {
	t.Parallel()
	dir := many(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := OpenReader(dir).Read(ctx, all, func(Line) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	enough := errors.New("enough")
	for _, q := range []Query{all, {Tail: -1, Grep: regexp.MustCompile("run")}} {
		seen := 0
		err := OpenReader(dir).Read(t.Context(), q, func(Line) error { seen++; return enough })
		if !errors.Is(err, enough) || seen != 1 {
			t.Errorf("%v after %d lines", err, seen)
		}
	}
}

func TestDeletedSegmentInTheMiddleIsAGap(t *testing.T) {
	t.Parallel()
	dir := many(t)
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	everything := read(t, dir, all)
	var lost int64
	for _, l := range everything {
		if l.Seq >= list[2].first && l.Seq < list[4].first {
			lost += int64(len(l.Data)) + 1
		}
	}
	for _, s := range list[2:4] {
		if err := os.Remove(filepath.Join(dir, s.name())); err != nil {
			t.Fatal(err)
		}
	}
	var gaps []Line
	for _, l := range read(t, dir, all) {
		if l.Stream == Gap {
			gaps = append(gaps, l)
		}
	}
	if len(gaps) != 1 || gaps[0].Seq != list[2].first || gaps[0].Missing != lost {
		t.Errorf("gaps %swant one at %d of %d bytes", texts(gaps), list[2].first, lost)
	}
}

func TestRequiredLiterals(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		`error`:              "error",
		`^error$`:            "error",
		`\d+ errors? in \w+`: " error",
		`(foo)bar`:           "foobar",
		`(abc)+`:             "abc",
		`a|b`:                "",
		`(?i)error`:          "",
		`x*`:                 "",
		`GET /api/\S+ 500`:   "GET /api/",
	} {
		got := ""
		if literal := newMatcher(regexp.MustCompile(expression)).literal; literal != nil {
			got = string(literal.text)
		}
		if got != want {
			t.Errorf("%s requires %q, want %q", expression, got, want)
		}
	}
}
