package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"
)

// maxFile is the largest file that is read.
const maxFile = 4 << 20

// unreadable says why a file is refused although it is there.
type unreadable struct {
	why, hint string
}

func (u *unreadable) Error() string { return u.why }

var errTooLarge = &unreadable{why: "is larger than 4 MiB"}

// files reads files once each and remembers them for a record.
type files struct {
	dir     string // the project's
	read    func(path string) ([]byte, error)
	sources []Source
}

// get reads a file. Its error is an *unreadable or one that fs knows.
func (f *files) get(path string) ([]byte, error) {
	for _, known := range f.sources {
		if known.Path == path {
			return known.Content, nil
		}
	}
	read := f.read
	if read == nil {
		read = readDisk
	}
	content, err := read(path)
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, errTooLarge
	}
	f.sources = append(f.sources, Source{Path: path, Content: content})
	return content, nil
}

// text is get for a file that has to be text.
func (f *files) text(path string) ([]byte, error) {
	content, err := f.get(path)
	if err != nil {
		file := f.name(path)
		return nil, blame(Pos{File: file}, hintOf(err), "%s %v", file, reason(err))
	}
	if at := bytes.IndexByte(content, 0); at >= 0 {
		return nil, blame(newPositions(f.name(path), content).at(at), "", "there is a NUL byte here: this is not a text file")
	}
	if at := invalidUTF8(content); at >= 0 {
		return nil, blame(newPositions(f.name(path), content).at(at), "save the file as UTF-8", "byte 0x%02x is not UTF-8", content[at])
	}
	return content, nil
}

// leaves refuses a file that is written as one of the project and is a link to
// somewhere else: whoever reads the project's file would not see what is read.
func (f *files) leaves(path string) error {
	rel, err := filepath.Rel(f.dir, path)
	if err != nil || !filepath.IsLocal(rel) || f.read != nil {
		return nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil // reading it says why
	}
	if rel, err := filepath.Rel(f.dir, real); err == nil && filepath.IsLocal(rel) {
		return nil
	}
	return blame(Pos{File: f.name(path)}, fmt.Sprintf("env_file = [%s]", tomlString(real)), "%s is a link to %s, outside of the project", f.name(path), real)
}

// name is path as it is shown: relative to the project when inside it.
func (f *files) name(path string) string {
	if rel, err := filepath.Rel(f.dir, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

func invalidUTF8(content []byte) int {
	if utf8.Valid(content) {
		return -1
	}
	for i := 0; i < len(content); {
		r, n := utf8.DecodeRune(content[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// reason is why a file cannot be read, without the path that the message has.
func reason(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("does not exist")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("cannot be read: permission denied")
	}
	var own *unreadable
	if errors.As(err, &own) {
		return own
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("cannot be read: %w", path.Err)
	}
	return fmt.Errorf("cannot be read: %w", err)
}

func hintOf(err error) string {
	var own *unreadable
	if errors.As(err, &own) {
		return own.hint
	}
	return ""
}

// readDisk reads a regular file of at most maxFile bytes that nobody but the
// user and root may write.
func readDisk(path string) ([]byte, error) {
	// Opening a named pipe would otherwise wait for its writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // nothing was written
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return nil, &unreadable{why: "is a directory, not a file"}
	case !info.Mode().IsRegular():
		return nil, &unreadable{why: "is not a regular file"}
	case info.Size() > maxFile:
		return nil, errTooLarge
	}
	if err := trusted(path, info); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(file, maxFile+1))
}

// Recorded reads from what a Project's Sources kept: an Options.Read that does
// not touch the disk.
func Recorded(sources []Source) func(path string) ([]byte, error) {
	content := make(map[string][]byte, len(sources))
	for _, s := range sources {
		content[s.Path] = s.Content
	}
	return func(path string) ([]byte, error) {
		if c, ok := content[path]; ok {
			return c, nil
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
}

// shellQuote is s as one word for a shell.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@,", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
