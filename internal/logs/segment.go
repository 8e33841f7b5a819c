package logs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// segment is the name of one file of a store.
type segment struct {
	first uint64 // number of its first line
	run   int    // run of its first line
}

func (s segment) name() string { return fmt.Sprintf("%020d-%d.log", s.first, s.run) }

func parseSegment(name string) (s segment, ok bool) {
	body, ok := strings.CutSuffix(name, ".log")
	if !ok {
		return s, false
	}
	number, run, ok := strings.Cut(body, "-")
	if !ok || len(number) != 20 {
		return s, false
	}
	var err1, err2 error
	s.first, err1 = strconv.ParseUint(number, 10, 63)
	s.run, err2 = strconv.Atoi(run)
	return s, err1 == nil && err2 == nil && s.run >= 0 && s.first > 0 && s.name() == name
}

// segments lists a store, oldest first. A directory that is not there has none.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("log store %s: %w", dir, err)
	}
	var list []segment
	for _, entry := range entries {
		if s, ok := parseSegment(entry.Name()); ok {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b segment) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.run, b.run))
	})
	return list, nil
}

// openSegment opens a segment for reading, never through a symbolic link.
func openSegment(dir string, s segment, flags int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, s.name()), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("log segment %s: not a regular file", f.Name())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Prune deletes old segments of the stores in dirs, which share one budget:
// those last written more than maxAge before now, then the oldest until at most
// maxBytes are left. The newest segment of a store always stays. A limit of 0
// is none. Stores that are not there are passed over; what could not be deleted
// is in the error, and the rest is deleted all the same.
func Prune(dirs []string, maxBytes int64, maxAge time.Duration, now time.Time) error {
	var errs []error
	var total int64
	var old [][]stored // of each store, without its newest, oldest first
	for _, dir := range dirs {
		list, err := stat(dir)
		if err != nil {
			errs = append(errs, err)
		}
		for _, s := range list {
			total += s.size
		}
		if len(list) > 1 {
			old = append(old, list[:len(list)-1])
		}
	}
	for len(old) > 0 {
		i := oldest(old)
		s := old[i][0]
		expired := maxAge > 0 && now.Sub(s.written) > maxAge
		if !expired && (maxBytes <= 0 || total <= maxBytes) {
			break
		}
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		} else {
			total -= s.size
		}
		if old[i] = old[i][1:]; len(old[i]) == 0 {
			old = slices.Delete(old, i, i+1)
		}
	}
	return errors.Join(errs...)
}

// stored is a segment as it lies on the disk.
type stored struct {
	path    string
	size    int64
	written time.Time
}

func stat(dir string) ([]stored, error) {
	list, err := segments(dir)
	if err != nil {
		return nil, err
	}
	files := make([]stored, 0, len(list))
	for _, s := range list {
		path := filepath.Join(dir, s.name())
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		files = append(files, stored{path: path, size: info.Size(), written: info.ModTime()})
	}
	return files, nil
}

// oldest is the store whose first segment was written the longest ago. Within
// a store the order of numbers counts, so that a clock that was set back never
// tears a hole into it.
func oldest(stores [][]stored) int {
	best := 0
	for i := range stores {
		if stores[i][0].written.Before(stores[best][0].written) {
			best = i
		}
	}
	return best
}
