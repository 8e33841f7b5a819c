package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// former is a directory with a record and a number for each service in a file of
// its own, as they were kept before there was one of each for all.
type former struct {
	dir   string
	files []fs.DirEntry
}

func (s Store) former(project string) former {
	f := former{dir: filepath.Join(s.Project(project), "services")}
	all, _ := os.ReadDir(f.dir) // mostly there is none
	for _, e := range all {
		if !strings.Contains(e.Name(), ".bad-") {
			f.files = append(f.files, e)
		}
	}
	return f
}

// read takes in what is recorded, and the numbers.
func (f former) read(known map[string]Service, given map[string]int) (problems []error) {
	seen := map[string]bool{}
	for _, e := range f.files {
		if name, is := strings.CutSuffix(e.Name(), ".run"); is {
			content, _ := os.ReadFile(filepath.Join(f.dir, e.Name()))
			run, _ := strconv.Atoi(strings.TrimSpace(string(content))) // else the history has it
			if run > given[name] {
				given[name] = run
			}
		}
		name, is := strings.CutSuffix(strings.TrimSuffix(e.Name(), ".previous"), ".json")
		if !is || seen[name] || strings.HasPrefix(name, ".") {
			continue
		}
		seen[name] = true
		var svc Service
		if err := Salvage(filepath.Join(f.dir, name+".json"), &svc, time.Now()); err != nil {
			problems = append(problems, err)
		}
		if svc.Name == name {
			known[name] = svc
		}
	}
	return problems
}

// replace writes down in the records what was read, and removes the files.
func (f former) replace(r *Records, given map[string]int) error {
	if len(f.files) == 0 {
		return nil
	}
	r.size = unsure
	err := r.Save()
	for name, run := range given {
		err = errors.Join(err, r.Begin(name, run))
	}
	if err != nil {
		return err
	}
	for _, e := range f.files {
		if e := os.Remove(filepath.Join(f.dir, e.Name())); !errors.Is(e, fs.ErrNotExist) { // it may have been put aside
			err = errors.Join(err, e)
		}
	}
	_ = os.Remove(f.dir) // unless something is there that was damaged
	return err
}
