package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// result is one measurement.
type result struct {
	Engine  string  `json:"engine"`
	Network string  `json:"network,omitempty"`
	What    string  `json:"what"`
	Round   int     `json:"round"`
	MS      float64 `json:"ms"`
	Load    string  `json:"load"` // of the last minute, ours included
}

// results are all measurements, in their order.
type results struct {
	all   []result
	lines *json.Encoder // nil: nobody keeps them
}

// clock starts now. What it returns notes the time since it was last called.
// Round 0 does not count.
func (r *results) clock(engine, network string, round int) func(what string) {
	last := time.Now()
	return func(what string) {
		one := result{engine, network, what, round, float64(time.Since(last)) / float64(time.Millisecond), load()}
		if round > 0 {
			r.all = append(r.all, one)
			if r.lines != nil {
				_ = r.lines.Encode(one) // the table has it too
			}
		}
		last = time.Now()
	}
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// column is what has one median for each engine.
type column struct{ what, network string }

func (c column) String() string {
	if c.network == "" {
		return c.what
	}
	return c.what + ", " + c.network + " network"
}

// table prints medians, in milliseconds.
func (r *results) table(to io.Writer) {
	values := map[string]map[column][]float64{}
	var engines []string
	var columns []column
	for _, one := range r.all {
		c := column{one.What, one.Network}
		if values[one.Engine] == nil {
			values[one.Engine] = map[column][]float64{}
			engines = append(engines, one.Engine)
		}
		if !slices.Contains(columns, c) {
			columns = append(columns, c)
		}
		values[one.Engine][c] = append(values[one.Engine][c], one.MS)
	}
	fmt.Fprint(to, "| ms: median (least..most) n |")
	for _, c := range columns {
		fmt.Fprintf(to, " %s |", c)
	}
	fmt.Fprintf(to, "\n|%s\n", strings.Repeat("---|", len(columns)+1))
	for _, engine := range engines {
		fmt.Fprintf(to, "| %s |", engine)
		for _, c := range columns {
			fmt.Fprintf(to, " %s |", cell(values[engine][c]))
		}
		fmt.Fprintln(to)
	}
	first, last := r.all[0], r.all[len(r.all)-1]
	fmt.Fprintf(to, "\nLoad of the machine: %s at first, %s at last.\n", first.Load, last.Load)
}

func cell(values []float64) string {
	if len(values) == 0 {
		return "—"
	}
	slices.Sort(values)
	return fmt.Sprintf("**%.1f** (%.1f..%.1f) %d", values[len(values)/2], values[0], values[len(values)-1], len(values))
}
