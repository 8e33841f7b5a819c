package config

import (
	"errors"
	"strings"
)

var (
	volumeName     = patternOf(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	volumeExample  = `"name:/path", "./dir:/path" or "/dir:/path", with :ro for reading only`
	errVolume      = errors.New("is not a volume")
	errTarget      = errors.New("must be mounted at an absolute path in the container")
	errVolumeMode  = errors.New("can only end in :ro or :rw")
	errVolumeTilde = errors.New("begins with ~, which only a shell knows")
	errVolumeName  = errors.New("has a source that is neither a volume's name nor a path that begins with ./, ../ or /")
)

// ParseVolume reads one entry of volumes. Paths are relative to dir. A source
// that begins with a reference is kept as it is, with Bind false.
func ParseVolume(dir, s string) (Volume, error) {
	fields := splitOutside(s)
	if len(fields) < 2 || len(fields) > 3 {
		return Volume{}, errVolume
	}
	if len(fields) == 3 && fields[2] != "ro" && fields[2] != "rw" {
		return Volume{}, errVolumeMode
	}
	return NewVolume(dir, fields[0], fields[1], len(fields) == 3 && fields[2] == "ro")
}

// NewVolume is ParseVolume for what is taken apart already.
func NewVolume(dir, source, target string, readOnly bool) (Volume, error) {
	v := Volume{Source: source, Target: target, ReadOnly: readOnly}
	if !strings.HasPrefix(v.Target, "/") && !referenceAt(v.Target) {
		return Volume{}, errTarget
	}
	switch {
	case referenceAt(v.Source):
	case strings.HasPrefix(v.Source, "/"), strings.HasPrefix(v.Source, "./"), strings.HasPrefix(v.Source, "../"), v.Source == ".", v.Source == "..":
		v.Bind = true
		if HasReference(v.Source) {
			// What a reference comes to may itself go up: it must not be cleaned
			// away before it is known.
			if !strings.HasPrefix(v.Source, "/") {
				v.Source = dir + "/" + v.Source
			}
			break
		}
		v.Source = inside(dir, v.Source)
	case strings.HasPrefix(v.Source, "~"):
		return Volume{}, errVolumeTilde
	case !volumeName.MatchString(v.Source) && !HasReference(v.Source):
		return Volume{}, errVolumeName
	}
	return v, nil
}

// splitOutside splits at the colons that are not inside a reference.
func splitOutside(s string) []string {
	fields := []string{""}
	for _, p := range Split(s) {
		if p.Of != "" {
			fields[len(fields)-1] += p.Written
			continue
		}
		first, rest, more := strings.Cut(p.Literal, ":")
		fields[len(fields)-1] += first
		for more {
			first, rest, more = strings.Cut(rest, ":")
			fields = append(fields, first)
		}
	}
	return fields
}

// String is the volume as it is written, with an absolute path.
func (v Volume) String() string {
	s := v.Source + ":" + v.Target
	if v.ReadOnly {
		s += ":ro"
	}
	return s
}
