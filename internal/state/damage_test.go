package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// damages makes a good file at path what it must not be.
var damages = map[string]func(t *testing.T, path string){
	"empty":           contents(""),
	"truncated":       contents(`{"format":1,"id":`),
	"NUL-filled":      contents(strings.Repeat("\x00", 4096)),
	"noise":           contents("\xff\xfe\x00{{{"),
	"another type":    contents(`{"format":1,"id":7}`),
	"trailing":        contents(`{"format":1,"id":"a","dir":"/a","wants":{}} and more`),
	"no format":       contents(`{"id":"a","dir":"/a","wants":{}}`),
	"foreign version": contents(`{"format":99,"id":"a","dir":"/a"}`),
	"another's shape": contents(`[{"format":1}]`),
	"deep":            contents(strings.Repeat("[", 20000)),
	"1 GB": func(t *testing.T, path string) {
		if err := os.Truncate(path, 1<<30); err != nil {
			t.Fatal(err)
		}
	},
	"a directory": func(t *testing.T, path string) {
		remade(t, path, func() error { return os.MkdirAll(filepath.Join(path, "inside"), 0o700) })
	},
	"a link": func(t *testing.T, path string) {
		remade(t, path, func() error { return os.Symlink("/etc/passwd", path) })
	},
}

func contents(text string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func remade(t *testing.T, path string, f func() error) {
	t.Helper()
	if err := errors.Join(os.Remove(path), f()); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsDamagedIsPutAside(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P14 F65")
	for name, harm := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "p.json")
			for _, id := range []string{"old", "new"} {
				if err := Write(path, Project{Format: Format, ID: id, Dir: "/a"}, Care{Previous: true}); err != nil {
					t.Fatal(err)
				}
			}
			harm(t, path)
			before, _ := os.Lstat(path)
			var p Project
			var damaged *Damaged
			err := Salvage(path, &p, time.Unix(1, 0))
			if !errors.As(err, &damaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), path+".bad-1970") {
				t.Fatalf("got %v", err)
			}
			if kept, err := os.Lstat(damaged.Aside); err != nil || !os.SameFile(kept, before) {
				t.Errorf("what was there is not kept: %v", err)
			}
			if p.ID != "old" || !damaged.Previous {
				t.Errorf("the copy before it is not used: %+v, %v", p, err)
			}
			if err := Salvage(path, &p, time.Unix(2, 0)); err != nil || p.ID != "old" {
				t.Errorf("the next time: %+v, %v", p, err)
			}
			// And when that is damaged too, there is nothing, and it is said.
			harm(t, path)
			if err := os.WriteFile(previous(path), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			p = Project{}
			if err := Salvage(path, &p, time.Unix(3, 0)); !errors.As(err, &damaged) || damaged.Previous || p.ID != "" {
				t.Errorf("with no copy left: %+v, %v", p, err)
			}
			if err := Salvage(path, &p, time.Unix(4, 0)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the time after: %v", err)
			}
		})
	}
}

func TestAFileThatIsMissingIsTakenFromTheCopyBeforeIt(t *testing.T) {
	t.Parallel()
	s := Store{Dir: t.TempDir()}
	for _, up := range []bool{true, false} {
		if err := s.SaveProject(Project{ID: "a", Dir: "/a", Wants: map[string]bool{"web": up}}); err != nil {
			t.Fatal(err)
		}
		r, _ := s.Records("a")
		much := strings.Repeat(fmt.Sprint(up), slack) // the file is written whole for it
		if err := r.Save(Service{Name: "web", Runs: []Run{{Run: 7, Reason: much}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"project.json", "services.jsonl"} {
		if err := os.Remove(filepath.Join(s.Project("a"), file)); err != nil {
			t.Fatal(err)
		}
	}
	projects, problems := s.Projects()
	if len(projects) != 1 || !projects[0].Wants["web"] || len(problems) != 1 || !strings.Contains(problems[0].Error(), "it is missing") {
		t.Errorf("%+v, %v", projects, problems)
	}
	r, problems := s.Records("a")
	if services := r.Services(); services["web"].Next() != 8 || len(problems) != 1 {
		t.Errorf("%+v, %v", services, problems)
	}
}

func TestALostRecordIsNotTakenForNone(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P14 F65")
	s := Store{Dir: t.TempDir()}
	if s.Lost("a") != nil {
		t.Error("nothing was ever there")
	}
	if err := s.SaveProject(Project{ID: "a", Dir: "/a"}); err != nil {
		t.Fatal(err)
	}
	contents("")(t, filepath.Join(s.Project("a"), projectFile))
	if projects, problems := s.Projects(); len(projects) != 0 || len(problems) != 1 {
		t.Errorf("%+v, %v", projects, problems)
	}
	lost := s.Lost("a")
	if lost == nil || len(s.Aside()) != 1 || lost.Aside != s.Aside()[0] {
		t.Errorf("lost %v, aside %v", lost, s.Aside())
	}
	if err := s.SaveProject(Project{ID: "a", Dir: "/a"}); err != nil {
		t.Fatal(err)
	}
	if s.Lost("a") != nil {
		t.Error("it is lost after it was written again")
	}
}

func TestTheIdentityOutlivesDamage(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P14 F65")
	for name, harm := range damages {
		s := Store{Dir: t.TempDir()}
		owner, err := s.Owner()
		if err != nil || len(owner) != 16 {
			t.Fatalf("%q, %v", owner, err)
		}
		path := filepath.Join(s.Dir, InstanceFile)
		harm(t, path)
		var damaged *Damaged
		if again, err := s.Owner(); again != owner || !errors.As(err, &damaged) {
			t.Errorf("%s: it was %q and is %q: %v", name, owner, again, err)
		}
		if again, err := s.Owner(); again != owner || err != nil {
			t.Errorf("%s, the next time: it was %q and is %q: %v", name, owner, again, err)
		}
		harm(t, path)
		contents("")(t, previous(path))
		if again, err := s.Owner(); again == owner || len(again) != 16 || !errors.As(err, &damaged) || !strings.Contains(err.Error(), "not found any more") {
			t.Errorf("%s, with no copy left: %q: %v", name, again, err)
		}
	}
	s := Store{Dir: t.TempDir()}
	later := []byte(`{"format":99,"instance":"0123456789abcdef","more":1}`)
	contents(string(later))(t, filepath.Join(s.Dir, InstanceFile))
	if owner, err := s.Owner(); owner != "0123456789abcdef" || err != nil {
		t.Errorf("a later locald's: %q, %v", owner, err)
	}
	if now, err := os.ReadFile(filepath.Join(s.Dir, InstanceFile)); err != nil || !bytes.Equal(now, later) {
		t.Errorf("a later locald's was touched: %q, %v", now, err)
	}
}

// TestACopyHasAnIdentityOfItsOwn: what the original's processes and containers
// are marked with is not the copy's.
func TestACopyHasAnIdentityOfItsOwn(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P3 F18")
	original := Store{Dir: filepath.Join(t.TempDir(), "a")}
	owner, err := original.Owner()
	if err != nil {
		t.Fatal(err)
	}
	copied := Store{Dir: filepath.Join(t.TempDir(), "b")}
	if err := os.CopyFS(copied.Dir, os.DirFS(original.Dir)); err != nil {
		t.Fatal(err)
	}
	other, err := copied.Owner()
	if other == owner || len(other) != 16 || err == nil || !strings.Contains(err.Error(), "is a copy of "+original.Dir) {
		t.Errorf("the copy of %q is %q, %v", owner, other, err)
	}
	if again, err := copied.Owner(); again != other || err != nil {
		t.Errorf("and then %q, %v", again, err)
	}
	if again, err := original.Owner(); again != owner || err != nil {
		t.Errorf("the original was %q and is %q, %v", owner, again, err)
	}
	moved := Store{Dir: original.Dir + "-moved"}
	if err := os.Rename(original.Dir, moved.Dir); err != nil {
		t.Fatal(err)
	}
	if again, err := moved.Owner(); again != owner || err != nil {
		t.Errorf("moved: %q was %q, %v", again, owner, err)
	}
	if machineID() == "" {
		return
	}
	elsewhere := identity{Format, string(owner), moved.Dir, "0badcafe"}
	if err := Write(filepath.Join(moved.Dir, InstanceFile), elsewhere, Care{}); err != nil {
		t.Fatal(err)
	}
	if again, err := moved.Owner(); again == owner || err == nil || !strings.Contains(err.Error(), "from another machine") {
		t.Errorf("from another machine: %q, %v", again, err)
	}
}

// TestALineThatIsDamagedTakesNoOtherAlong: what can be read of the records is
// used, and the rest is taken from the copy before it, or left out.
func TestALineThatIsDamagedTakesNoOtherAlong(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(content string) string{
		"cut":       func(content string) string { return content[:len(content)-10] },
		"zeros":     func(content string) string { return content[:len(content)-10] + strings.Repeat("\x00", 10) },
		"overwrite": func(content string) string { return strings.Replace(content, `"name":"late"`, `"name":"la`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Store{Dir: t.TempDir()}
			r, _ := s.Records("a")
			for _, svc := range []Service{
				{Name: "web", Ports: map[string]int{"": 3000}, Runs: []Run{{Run: 7}}},
				{Name: "web", Ports: map[string]int{"": 3001}, Runs: []Run{{Run: 7}, {Run: 8}}},
				{Name: "late"},
			} {
				if err := r.Save(svc); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(s.Project("a"), "services.jsonl")
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(harm(string(content))), 0o600); err != nil {
				t.Fatal(err)
			}
			r, problems := s.Records("a")
			services := r.Services()
			if web := services["web"]; len(services) != 1 || web.Next() != 9 || len(web.Runs) != 2 || web.Ports[""] != 3001 || len(problems) != 1 || len(s.Aside()) != 1 {
				t.Errorf("%+v, %v", services, problems)
			}
			if seen := s.Look().Projects; len(seen) != 1 || len(seen[0].Services) != 1 || seen[0].Services["web"].Ports[""] != 3001 {
				t.Errorf("for those who look: %+v", seen)
			}
			if again, problems := s.Records("a"); len(again.Services()) != 1 || len(problems) > 0 {
				t.Errorf("the time after: %+v, %v", again.Services(), problems)
			}
		})
	}
}

// TestRecordsThatSomebodyTookAwayAreWrittenAnew: all of them, with the next that
// changes.
func TestRecordsThatSomebodyTookAwayAreWrittenAnew(t *testing.T) {
	t.Parallel()
	s := Store{Dir: t.TempDir()}
	path := filepath.Join(s.Project("a"), "services.jsonl")
	for name, harm := range map[string]func() error{
		"removed": func() error { return os.RemoveAll(s.Project("a")) },
		"cut":     func() error { return os.Truncate(path, 5) },
		"a link":  func() error { return errors.Join(os.Remove(path), os.Symlink("/dev/null", path)) },
	} {
		r, _ := s.Records("a")
		if err := r.Save(Service{Name: "web", Deaf: true}, Service{Name: "db", Major: "15"}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(harm(), r.Save(Service{Name: "db", Major: "16"})); err != nil {
			t.Fatal(name, err)
		}
		r, problems := s.Records("a")
		if now := r.Services(); !now["web"].Deaf || now["db"].Major != "16" || len(problems) > 0 {
			t.Errorf("%s: %+v, %v", name, now, problems)
		}
	}
}

// TestRecordsOfAFileEachAreTakenOver: those of a locald that kept a directory of
// them, once.
func TestRecordsOfAFileEachAreTakenOver(t *testing.T) {
	t.Parallel()
	s := Store{Dir: t.TempDir()}
	dir := filepath.Join(s.Project("a"), "services")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"web.json": `{"format":1,"name":"web","ports":{"":3000},"runs":[{"run":6},{"run":7}]}`, "web.run": "0000000000000000009\n",
		"db.json": `{"form`, "db.json.previous": `{"format":1,"name":"db","volume":true,"runs":[{"run":2}]}`,
		"lost.json": `{"form`, "lost.run": "0000000000000000003\n", ".web.json.new": "half",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{2, 0} {
		r, problems := s.Records("a")
		now := r.Services()
		if web := now["web"]; web.Ports[""] != 3000 || web.Next() != 10 || len(web.Runs) != 3 {
			t.Errorf("%+v", web)
		}
		if !now["db"].Volume || now["db"].Next() != 3 || now["lost"].Next() != 4 || len(problems) != want || len(s.Aside()) != 2 {
			t.Errorf("%+v, %v", now, problems)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("beside what was put aside: %v, %v", left, err)
	}
}
