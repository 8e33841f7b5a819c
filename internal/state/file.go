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
	Path, Aside string
	Err         error
}

func (d *Damaged) Error() string {
	return fmt.Sprintf("%s is damaged (%v); kept as %s", d.Path, d.Err, d.Aside)
}

func (d *Damaged) Unwrap() error { return d.Err }

// Write makes path hold value, or leaves it as it was: it writes beside and
// renames. Durable also survives a power cut, for what cannot be found out
// again; the rest only needs to survive the daemon.
func Write(path string, value any, durable bool) error {
	content, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	if err := writeBeside(path, append(content, '\n'), durable); err != nil {
		code := "permission_denied"
		if full(err) {
			code = "disk_full"
		}
		return &runtime.Fault{Code: code, Err: fmt.Errorf("state: %w", err)}
	}
	return nil
}

func writeBeside(path string, content []byte, durable bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err == nil && durable {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil && durable {
		err = syncDir(filepath.Dir(path))
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

// Read fills value from path. The error matches fs.ErrNotExist when there is
// no file, ErrNewer when a later locald wrote it, and anything else is damage:
// see Salvage.
func Read(path string, value any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s is not a file", path))
	}
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return err
	case len(content) > maxFile:
		return fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(content, &head); err != nil {
		return at(content, err)
	}
	if head.Format > Format {
		return fmt.Errorf("%s: format %d: %w", path, head.Format, ErrNewer)
	}
	if err := json.Unmarshal(content, value); err != nil {
		return at(content, err)
	}
	return nil
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

// Salvage is Read for a daemon that starts: a damaged file is put aside under
// a name that says when, so that nothing is lost and nothing is in the way.
func Salvage(path string, value any, now time.Time) error {
	err := Read(path, value)
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNewer) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	aside := path + ".bad-" + now.UTC().Format("20060102T150405.000000000")
	if renamed := os.Rename(path, aside); renamed != nil {
		return fmt.Errorf("%s is damaged (%w) and cannot be put aside: %w", path, err, renamed)
	}
	return &Damaged{Path: path, Aside: aside, Err: err}
}
