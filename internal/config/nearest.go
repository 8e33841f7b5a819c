package config

// Nearest is the candidate whose spelling is closest to word, or "" when none
// is close enough to have been meant.
func Nearest(word string, candidates []string) string { return nearest(word, candidates) }
