package oci

import (
	"fmt"
	"strings"
)

// The names by which a layer says that something below it is gone.
const (
	whiteout   = ".wh."
	whiteoutOf = ".wh..wh." // what else starts so belongs to a storage driver of long ago
	opaque     = ".wh..wh..opq"
)

// longest is the longest name, all directories included, that is unpacked: the
// kernel's own limit.
const longest = 4096

// split makes the parts of an entry's name, from the image's root. None is
// empty, "." or "..".
func split(name string) ([]string, error) {
	if len(name) > longest {
		return nil, fail(Corrupt, "an entry has a name of %d bytes: %.60q…", len(name), name)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			if len(parts) == 0 {
				return nil, leaves(name)
			}
			parts = parts[:len(parts)-1]
		default:
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// turn puts a link's target into the way that led to the link, whose parts
// before it are no links. Its ".." stay: they count from where the target's own
// links lead.
func turn(way []string, at int, target string) []string {
	var next []string
	if !strings.HasPrefix(target, "/") {
		next = append(next, way[:at]...)
	}
	for part := range strings.SplitSeq(target, "/") {
		if part != "" && part != "." {
			next = append(next, part)
		}
	}
	return append(next, way[at+1:]...)
}

// up takes the ".." at that place out of the way, with what is before it. ok is
// false where that is the root.
func up(way []string, at int) (next []string, ok bool) {
	if at == 0 {
		return nil, false
	}
	return append(append([]string{}, way[:at-1]...), way[at+1:]...), true
}

// mostTurns is how many links and ".." may be on the way to one entry.
const mostTurns = 255

func leaves(name string) error {
	return &Error{Kind: Unsafe, Err: fmt.Errorf("the entry %.200q leaves the image", name)}
}

// attribute reports whether an extended attribute of an entry is kept. Those of
// the overlay itself would change what other files are.
func attribute(name string, privileged bool) bool {
	switch {
	case strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."):
		return true
	}
	return privileged && name == "security.capability"
}
