package cli

import (
	"maps"
	"slices"
	"strings"
)

// table is rows of cells in columns. Cells are text without escape sequences;
// colours are put around them when it is printed.
type table struct {
	head []string
	rows [][]tableCell
}

type tableCell struct {
	text, colour string
}

func newTable(head ...string) *table { return &table{head: head} }

// row adds a row; texts come from services, files and errors, and are made
// harmless here.
func (t *table) row(texts ...string) []tableCell {
	row := make([]tableCell, len(texts))
	for i, text := range texts {
		row[i].text = cell(text)
	}
	t.rows = append(t.rows, row)
	return row
}

// lastColumn is how much of the last column is always shown.
const lastColumn = 24

// text is the table. A column that is empty in every row is left out. On a
// terminal of that many columns, if not 0, the last column is cut to fit, but
// never to so little that it says nothing.
func (t *table) text(p paint, columns int) string {
	widths := make([]int, len(t.head))
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], columnsOf(c.text))
		}
	}
	var shown []int
	for i, w := range widths {
		if w > 0 {
			shown = append(shown, i)
			widths[i] = max(w, columnsOf(t.head[i]))
		}
	}
	head := make([]tableCell, len(t.head))
	for i, text := range t.head {
		head[i] = tableCell{text, bold}
	}
	var b strings.Builder
	for _, row := range append([][]tableCell{head}, t.rows...) {
		line(&b, row, shown, widths, p, columns)
	}
	return b.String()
}

// line adds one row. Blanks at its end are left out.
func line(b *strings.Builder, row []tableCell, shown, widths []int, p paint, columns int) {
	last := -1
	for n, i := range shown {
		if row[i].text != "" {
			last = n
		}
	}
	used := 0
	for n, i := range shown[:last+1] {
		if n > 0 {
			b.WriteString("   ")
			used += 3
		}
		text := row[i].text
		if n == len(shown)-1 && columns > 0 {
			text = clip(text, max(columns-used, lastColumn))
		}
		b.WriteString(p.as(row[i].colour, text))
		if n < last {
			b.WriteString(strings.Repeat(" ", widths[i]-columnsOf(text)))
			used += widths[i]
		}
	}
	b.WriteString("\n")
}

// sortedKeys is the keys of m in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
