// Package config reads a project's file and says what is wrong with it, with
// file, line and column.
//
// It starts nothing, resolves no reference and knows no port that is not
// written: packages env and project do. It imports no other room, and every
// room may import it.
//
// One table of keys (keys.go) is what the checker accepts, what the JSON
// Schema says, what is decoded, what "config show" shows and what a restart is
// for, so that these cannot disagree.
package config
