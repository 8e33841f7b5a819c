package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/locald/locald/runtime"
)

// Format is the number that every file begins with. A newer one is refused,
// not guessed.
const Format = 1

// maxFile is far above what any of the files comes to.
const maxFile = 64 << 20

// ErrNewer says that a file was written by a later locald.
var ErrNewer = errors.New("written by a later locald")

// Damaged is a file that cannot be read as what it should be, and where it has
// been put aside.
type Damaged struct {
	Path, Aside string // Aside is empty when there was nothing left to keep
	Previous    bool   // the copy before it could be read, and took its place
	Err         error
}

func (d *Damaged) Error() string {
	text := fmt.Sprintf("%s is damaged (%v)", d.Path, d.Err)
	if d.Aside != "" {
		text += "; kept as " + d.Aside
	}
	if d.Previous {
		text += "; the copy before it is used"
	}
	return text
}

func (d *Damaged) Unwrap() error { return d.Err }

// Care is what a file has to survive. The zero value is a kill at any moment:
// the file is then the old one or the new one, whole.
type Care struct {
	// Power says a power cut too. It costs two fsyncs (BenchmarkWrite on ext4: 4
	// to 13 ms instead of 1 to 3), so it is for what cannot be found out
	// again.
	Power bool

	// Previous keeps the file that was there before, for when the new one is
	// damaged later.
	Previous bool
}

// Write makes path hold value, or leaves it as it was: it writes beside and
// renames. Nothing else may write path meanwhile.
func Write(path string, value any, care Care) error {
	content, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	if err := replace(path, append(content, '\n'), care); err != nil {
		return unwritten(filepath.Dir(path), err)
	}
	return nil
}

// unwritten is a failed write as people are told of it.
func unwritten(dir string, err error) error {
	f := &runtime.Fault{Code: "internal", Err: fmt.Errorf("state: %w", err)}
	switch {
	case full(err):
		f.Code, f.Err, f.Hint = "disk_full", fmt.Errorf("state: disk full: %w", err), "df -h "+dir
	case errors.Is(err, syscall.EROFS):
		f.Code, f.Hint = "permission_denied", "findmnt --target "+dir
	case errors.Is(err, fs.ErrPermission):
		f.Code, f.Hint = "permission_denied", "chmod u+rwx "+dir
	}
	return f
}

func replace(path string, content []byte, care Care) error {
	dir, name := filepath.Split(path)
	beside := filepath.Join(dir, "."+name+".new")
	if err := fresh(beside, content, care.Power); err != nil {
		_ = os.Remove(beside) // what is left of it is overwritten the next time
		return err
	}
	if care.Previous {
		keep(path)
	}
	if err := os.Rename(beside, path); err != nil {
		_ = os.Remove(beside)
		return err
	}
	if !care.Power {
		return nil
	}
	err := syncDir(dir)
	if err != nil && care.Previous {
		// Nobody knows which of the two a power cut would leave. The caller is
		// told that nothing changed, so that is how it has to be for a kill.
		_ = again(previous(path), path)
	}
	return err
}

// previous is where the copy before the one at path is kept.
func previous(path string) string { return path + ".previous" }

// keep makes the file at path the previous one. A system without hard links
// goes without.
func keep(path string) {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		_ = again(path, previous(path))
	}
}

// again gives a file a second name, in one step when there is one already.
func again(from, to string) error {
	dir, name := filepath.Split(to)
	link := filepath.Join(dir, "."+name+".link")
	err := os.Link(from, link)
	if errors.Is(err, fs.ErrExist) { // of a daemon that was killed
		_ = os.Remove(link)
		err = os.Link(from, link)
	}
	if err != nil {
		return err
	}
	err = os.Rename(link, to)
	_ = syscall.Unlink(link) // is still there when both names were of one file
	return err
}

// fresh writes a file that was not there.
func fresh(path string, content []byte, power bool) error {
	create := func() (*os.File, error) {
		return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	}
	f, err := create()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = create()
	case errors.Is(err, fs.ErrExist): // of a daemon that was killed
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		f, err = create()
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil && power {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// valid is what a file can be checked for beyond its syntax.
type valid interface{ valid() error }

// Read fills value, a pointer, from path. The error matches fs.ErrNotExist when
// there is no file, ErrNewer when a later locald wrote it, and anything else is
// damage: see Salvage.
func Read(path string, value any) error {
	content, err := content(path)
	if err != nil {
		return err
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(content, &head); err != nil {
		return at(content, err)
	}
	switch {
	case head.Format > Format:
		return fmt.Errorf("format %d: %w", head.Format, ErrNewer)
	case head.Format < 1:
		return fmt.Errorf("format %d is none", head.Format)
	}
	if err := json.Unmarshal(content, value); err != nil {
		return at(content, err)
	}
	if v, ok := value.(valid); ok {
		return v.valid()
	}
	return nil
}

func content(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(content) > maxFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return content, err
}

// at adds the line to an error of the decoder.
func at(content []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line := 1 + bytes.Count(content[:min(int(syntax.Offset), len(content))], []byte("\n"))
		return fmt.Errorf("line %d: %w", line, err)
	}
	return err
}

// Salvage is Read for a daemon that starts: a file that is damaged, or that a
// later locald wrote, is put aside under a name that says when, so that nothing
// is lost and nothing is in the way. The previous copy then takes its place,
// where there is one: the *Damaged says so, and value is filled.
func Salvage[T any](path string, value *T, now time.Time) error {
	err := Read(path, value)
	absent := errors.Is(err, fs.ErrNotExist)
	if err == nil || errors.Is(err, fs.ErrPermission) {
		return err
	}
	damaged := &Damaged{Path: path, Err: err}
	var before T
	readable := Read(previous(path), &before) == nil
	switch {
	case absent && !readable:
		return err
	case absent:
		damaged.Err = errors.New("it is missing")
	default:
		var kept error
		if damaged.Aside, kept = putAside(path, now); kept != nil {
			return fmt.Errorf("%s is damaged (%w) and cannot be put aside: %w", path, err, kept)
		}
	}
	*value = *new(T) // what was read of the damaged one
	if readable && again(previous(path), path) == nil {
		*value, damaged.Previous = before, true
	}
	return damaged
}

// putAside gives a damaged file a name that says when.
func putAside(path string, now time.Time) (aside string, err error) {
	aside = path + ".bad-" + now.UTC().Format("20060102T150405.000000000")
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	return aside, nil
}

// remove deletes a file and the copy before it.
func remove(path string) error {
	err := os.Remove(previous(path))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(os.Remove(path), err)
}
