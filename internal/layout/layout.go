// Package layout holds the house rules as a test: which room may open which
// door. It has no code of its own.
package layout
