package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Records are what is remembered of a project's services, in one file that is
// appended to: a line has a service as it became, with those of its runs that
// changed. What changes together is one write, however many services there are
// and however much is remembered of them. Methods may be called concurrently.
type Records struct {
	path    string
	numbers numbers

	mu    sync.Mutex
	known map[string]Service // as the file has it
	size  int64              // of the file, as it was left; unsure when it has to be written whole
	whole int64              // and when that was done last
}

// unsure is the size of no file.
const unsure = -1

// slack is how much the file may grow, beside doubling, before it is written
// whole. Starting and stopping 200 services comes to half of it.
const slack = 256 << 10

// Records reads what is remembered of a project's services. Of a file that is
// damaged, and put aside, the lines that can be read count, over those of the
// copy before it.
func (s Store) Records(project string) (r *Records, problems []error) {
	r = &Records{
		path: s.RecordsFile(project), known: map[string]Service{}, size: unsure,
		numbers: numbers{path: filepath.Join(s.Project(project), numbersFile)},
	}
	given, err := r.numbers.read()
	problems = append(problems, err)
	former := s.former(project)
	problems = append(problems, former.read(r.known, given)...)
	damage := r.read()
	for name, run := range given {
		svc := r.known[name]
		svc.Name = name
		if run >= svc.Next() { // its daemon was killed before the rest was written
			svc = svc.With(Run{Run: run})
		}
		r.known[name] = svc
	}
	problems = append(problems, damage)
	if _, aside := errors.AsType[*Damaged](damage); aside {
		problems = append(problems, r.Save())
	}
	problems = append(problems, former.replace(r, given))
	return r, slices.DeleteFunc(problems, func(err error) bool { return err == nil })
}

// Services is what is on record of each.
func (r *Records) Services() map[string]Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.known)
}

// Begin writes down that a run's number is given, so that it never is again.
func (r *Records) Begin(service string, run int) error { return r.numbers.give(service, run) }

// Save writes down what is remembered of services. Each is then the old one or
// the new one, whole. A file that somebody has removed or changed is written
// anew.
func (r *Records) Save(services ...Service) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := maps.Clone(r.known)
	var changed []Service
	for _, svc := range services {
		if line, is := since(now[svc.Name], svc); is {
			changed = append(changed, line)
		}
		now[svc.Name] = svc
	}
	lines, err := encode(changed)
	if err != nil {
		return err
	}
	err = errWhole
	if r.size != unsure && r.size+int64(len(lines)) <= 2*r.whole+slack {
		err = r.append(lines)
	}
	if errors.Is(err, errWhole) {
		err = r.rewrite(now)
	}
	if err != nil {
		return unwritten(filepath.Dir(r.path), err)
	}
	r.known = now
	return nil
}

// errWhole says that the file is not the one that was left.
var errWhole = errors.New("another file")

// append adds lines to the file, or leaves it as it was.
func (r *Records) append(lines []byte) error {
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EISDIR) {
		return errWhole
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() != r.size {
		return errWhole
	}
	if _, err := f.Write(lines); err != nil {
		if f.Truncate(r.size) != nil {
			r.size = unsure
		}
		return err
	}
	r.size += int64(len(lines))
	return nil
}

func (r *Records) rewrite(now map[string]Service) error {
	content, err := encode(slices.Collect(maps.Values(now)))
	if err != nil {
		return err
	}
	if err := replace(r.path, content, Care{Previous: true}); err != nil {
		return err
	}
	r.size, r.whole = int64(len(content)), int64(len(content))
	return nil
}

// read takes in what the file has. The error is what was damaged.
func (r *Records) read() error {
	content, err := content(r.path)
	var lines []Service
	if err == nil {
		lines, err = decode(content)
	}
	if err == nil {
		r.size, r.whole = int64(len(content)), int64(len(content))/2
		r.take(lines)
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	before, lost := r.previous()
	damaged := &Damaged{Path: r.path, Previous: lost == nil, Err: err}
	switch absent := errors.Is(err, fs.ErrNotExist); {
	case absent && lost != nil:
		return nil // there never was one
	case absent:
		damaged.Err = errors.New("it is missing")
	default:
		if damaged.Aside, err = putAside(r.path, time.Now()); err != nil {
			return fmt.Errorf("%w and cannot be put aside: %w", damaged, err)
		}
	}
	r.take(before)
	r.take(lines)
	return damaged
}

// previous is what the file before had.
func (r *Records) previous() ([]Service, error) {
	content, err := content(previous(r.path))
	if err != nil {
		return nil, err
	}
	return decode(content)
}

func (r *Records) take(lines []Service) {
	for _, line := range lines {
		known, there := r.known[line.Name]
		if there {
			runs := line.Runs
			line.Runs = known.Runs
			for _, run := range runs {
				line = line.With(run)
			}
		}
		r.known[line.Name] = line
	}
}

// decode reads all lines that can be. The error is about the first that cannot;
// a file without any is none.
func decode(content []byte) (lines []Service, err error) {
	number := 0
	for line := range bytes.Lines(content) {
		number++
		svc, bad := decodeLine(line)
		if bad == nil {
			lines = append(lines, svc)
		} else if err == nil {
			err = fmt.Errorf("line %d: %w", number, bad)
		}
	}
	if number == 0 {
		err = errors.New("it is empty")
	}
	return lines, err
}

func decodeLine(line []byte) (svc Service, err error) {
	if err := json.Unmarshal(line, &svc); err != nil {
		return svc, err
	}
	switch {
	case svc.Format > Format:
		return svc, fmt.Errorf("format %d: %w", svc.Format, ErrNewer)
	case svc.Format < 1:
		return svc, fmt.Errorf("format %d is none", svc.Format)
	case svc.Name == "":
		return svc, errors.New("it has no name")
	case line[len(line)-1] != '\n':
		return svc, errors.New("it has no end")
	}
	return svc, svc.valid()
}

func encode(services []Service) (lines []byte, err error) {
	for _, svc := range services {
		svc.Format = Format
		line, err := json.Marshal(svc)
		if err != nil {
			return nil, err
		}
		lines = append(append(lines, line...), '\n')
	}
	return lines, nil
}

// since is a service with only those runs that are not as they were, and whether
// anything is not.
func since(was, now Service) (line Service, changed bool) {
	line = now
	line.Runs = nil
	for _, run := range now.Runs {
		if i, there := was.find(run.Run); !there || was.Runs[i] != run {
			line.Runs = append(line.Runs, run)
		}
	}
	rest := now
	rest.Runs, rest.Format, was.Runs, was.Format = nil, 0, nil, 0
	return line, len(line.Runs) > 0 || !reflect.DeepEqual(was, rest)
}
