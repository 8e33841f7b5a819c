package config

import "strings"

// Beyond these a spelling is not looked for: comparing takes too long.
const (
	maxWord       = 64
	maxCandidates = 1000
)

// Nearest is the candidate that word most probably means, or "".
func Nearest(word string, candidates []string) string {
	limit := 3
	switch {
	case len(word) > maxWord || len(candidates) > maxCandidates:
		return ""
	case len(word) <= 3:
		limit = 1
	case len(word) <= 7:
		limit = 2
	}
	best := ""
	for _, c := range candidates {
		if len(c) > maxWord {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d <= limit && d < len(c) {
			best, limit = c, d-1
		}
	}
	return best
}

// Suggest is the hint for a name that no service has.
func (p *Project) Suggest(name string) string {
	names := make([]string, len(p.Services))
	for i, s := range p.Services {
		names[i] = s.Name
	}
	if near := Nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "services: " + strings.Join(names, ", ")
}

// didYouMean is the hint for word, or, when nothing is near, all the
// candidates if they are few.
func didYouMean(word string, candidates []string, what string) string {
	if near := Nearest(word, candidates); near != "" {
		return "did you mean " + near + "?"
	}
	if len(candidates) == 0 || len(candidates) > 8 || what == "" {
		return ""
	}
	return what + " " + strings.Join(candidates, ", ")
}

// distance is how many letters have to be changed, added, left out or swapped
// with their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
