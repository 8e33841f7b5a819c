package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/locald/locald/runtime"
)

// Context is the files that a Dockerfile may copy: those of a directory that
// its .dockerignore does not exclude. It holds nothing open.
type Context struct {
	dir        string
	dockerfile string // absolute path; in both links are resolved
	ignore     *patternmatcher.PatternMatcher
	back       []string // what the patterns that include again begin with, up to their first wildcard
}

// Open reads what is excluded: DOCKERFILE.dockerignore beside the Dockerfile, or
// .dockerignore in dir. Its errors, like those of the other methods, are faults.
func Open(dir, dockerfile string) (*Context, error) {
	if err := check(dir, dockerfile); err != nil {
		return nil, err
	}
	c := &Context{}
	var err error
	if c.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, unreadable(err, "")
	}
	if c.dockerfile, err = filepath.EvalSymlinks(dockerfile); err != nil {
		return nil, unreadable(err, "")
	}
	name := dockerfile + ".dockerignore"
	patterns, err := readIgnored(name)
	if errors.Is(err, fs.ErrNotExist) {
		name = filepath.Join(dir, ".dockerignore")
		patterns, err = readIgnored(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unreadable(err, "")
	}
	if c.ignore, err = patternmatcher.New(patterns); err != nil {
		return nil, invalid("", "%s: %v", name, err)
	}
	for _, p := range c.ignore.Patterns() {
		if p.Exclusion() {
			literal := filepath.ToSlash(p.String())
			if i := strings.IndexAny(literal, `*?[\`); i >= 0 {
				literal = literal[:i]
			}
			c.back = append(c.back, literal)
		}
	}
	return c, nil
}

// check tells a missing context from a missing Dockerfile.
func check(dir, dockerfile string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return invalid("mkdir -p "+dir, "context %s does not exist", dir)
	case err != nil:
		return unreadable(err, "")
	case !info.IsDir():
		return invalid("", "context %s is not a directory", dir)
	}
	info, err = os.Stat(dockerfile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return invalid(`build = { dockerfile = "…" }`, "Dockerfile %s does not exist", dockerfile)
	case err != nil:
		return unreadable(err, "")
	case !info.Mode().IsRegular():
		return invalid("", "Dockerfile %s is not a file", dockerfile)
	}
	return nil
}

func readIgnored(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return ignorefile.ReadAll(file)
}

func invalid(hint, format string, args ...any) error {
	return &runtime.Fault{Code: "config_invalid", Hint: hint, Err: fmt.Errorf("build: "+format, args...), Kind: runtime.ErrInvalid}
}

// unreadable is the fault for what cannot be read; name is that of a file of the
// context, which can be excluded.
func unreadable(err error, name string) error {
	hint := ""
	if name != "" {
		hint = "echo " + quoted("/"+name) + " >> .dockerignore"
	}
	return &runtime.Fault{Code: "permission_denied", Hint: hint, Err: fmt.Errorf("build: %w", err), Kind: runtime.ErrInvalid}
}

// quoted is s as a word for a shell.
func quoted(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return strings.ContainsRune(` "'$&*?|<>()[]{};\!#~`+"`\n\t", r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// member is one file, directory or symbolic link of a context.
type member struct {
	name string // with slashes, relative to the context
	info fs.FileInfo
	link string // where a symbolic link points
}

// walk visits the members in the order of their names, directories before what
// is in them. Sockets, pipes and devices are none, and neither is what vanishes
// meanwhile.
func (c *Context) walk(ctx context.Context, visit func(member) error) error {
	return c.walkBelow(ctx, "", patternmatcher.MatchInfo{}, visit)
}

func (c *Context) walkBelow(ctx context.Context, dir string, above patternmatcher.MatchInfo, visit func(member) error) error {
	entries, err := os.ReadDir(filepath.Join(c.dir, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unreadable(err, dir)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := path.Join(dir, e.Name())
		excluded, match, err := c.ignore.MatchesUsingParentResults(filepath.FromSlash(name), above)
		if err != nil {
			return invalid("", ".dockerignore: %v", err)
		}
		if !excluded {
			if err := c.visit(name, e, visit); err != nil {
				return err
			}
		}
		if e.IsDir() && (!excluded || c.mayInclude(name)) {
			if err := c.walkBelow(ctx, name, match, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Context) visit(name string, e fs.DirEntry, visit func(member) error) error {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unreadable(err, name)
	}
	m := member{name: name, info: info}
	switch info.Mode().Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		if m.link, err = os.Readlink(filepath.Join(c.dir, name)); err != nil {
			return nil // it is gone, or another thing by now
		}
	default:
		return nil
	}
	return visit(m)
}

// mayInclude reports whether a pattern can include something again below a
// directory that is excluded.
func (c *Context) mayInclude(dir string) bool {
	return slices.ContainsFunc(c.back, func(literal string) bool {
		return strings.HasPrefix(literal, dir+"/") || strings.HasPrefix(dir+"/", literal)
	})
}

// own reports what does not count when it is asked whether a context has
// changed: an image is not built again because of a commit, or because another
// service's configuration has changed.
func own(name string) bool {
	switch name {
	case "locald.toml", "locald.local.toml", ".git":
		return true
	}
	return strings.HasPrefix(name, ".git/")
}

// Digest tells one state of the files from another, by their names, kinds,
// permissions, lengths and times of modification; their content is not read.
func (c *Context) Digest(ctx context.Context) (string, error) {
	sum := sha256.New()
	err := c.walk(ctx, func(m member) error {
		if !own(m.name) {
			m.write(sum)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	info, err := os.Stat(c.dockerfile)
	if err != nil {
		return "", unreadable(err, "")
	}
	member{name: c.dockerfile, info: info}.write(sum) // it may be excluded, or elsewhere
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func (m member) write(sum hash.Hash) {
	size, changed := m.info.Size(), m.info.ModTime().UnixNano()
	if m.info.IsDir() {
		size, changed = 0, 0 // these change with what is excluded, too
	}
	fmt.Fprintf(sum, "%q %v %d %d %q\n", m.name, m.info.Mode(), size, changed, m.link)
}
