package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// FuzzProjects lets a daemon read its record of a project, and that project's
// services, of any content. What is taken can be written and read again and is
// the same; what is not is named and still on the disk, byte for byte; and a
// second look finds nothing that the first did not.
func FuzzProjects(f *testing.F) {
	for _, seed := range []string{
		`{"format":1,"id":"p","name":"shop","dir":"/shop","file":"locald.toml","used_at":"2026-11-23T10:00:00Z","wants":{"web":true,"db":false}}`,
		`{"format":1,"name":"web","ports":{"":3000},"runs":[{"run":1,"start":"2026-11-23T10:00:00Z","exit_code":1}]}`,
		`{"format":1,"name":"web","runs":[{"run":1},{"run":3}]}` + "\n" + `{"format":1,"name":"db"}` + "\n" + `{"format":1,"name":"web","runs":[{"run":2}]}` + "\n",
		`{"format":2,"id":"p","wants":17}`, `{"format":-1}`, `{"format":"1"}`, `{"format":1e999}`, `{"id":"p"} {"id":"q"}`,
		``, "null", "[]", `"`, "\x00\x00\x00\x00", `{"id":"p","id":"q"}`, `{"ID":"p"}`, `{"id":"p","wants":{"\ud800":true}}`,
		strings.Repeat("[", 20000), `{"format":1,"id":"p","used_at":"yesterday"}`, `{"name":"web","runs":[{"run":-1}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s := Store{Dir: t.TempDir()}
		project := filepath.Join(s.Project("p"), "project.json")
		service := filepath.Join(s.Project("p"), "services.jsonl")
		if err := os.MkdirAll(filepath.Dir(service), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{project, service} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		projects, problems := s.Projects()
		records, more := s.Records("p")
		services := records.Services()
		for _, err := range append(problems, more...) {
			if !strings.Contains(err.Error(), s.Dir) {
				t.Errorf("%v: does not say which file", err)
			}
		}
		if !kept(t, project, content) || !kept(t, service, content) {
			t.Error("what was in a file is nowhere any more")
		}
		if len(projects) > 1 || len(projects)+len(problems) == 0 {
			t.Fatalf("%v %v of a file for one, and the problems %v", projects, services, problems)
		}
		for _, p := range projects {
			if err := s.SaveProject(p); err != nil {
				t.Fatal(err)
			}
			p.Format = Format
			again, problems := s.Projects()
			if len(again) != 1 || len(problems) > 0 || !alike(again[0], p) {
				t.Errorf("%+v was written, and %+v %v read", p, again, problems)
			}
		}
		for name, svc := range services {
			svc.Deaf = !svc.Deaf
			if err := records.Save(svc); err != nil {
				t.Fatal(err)
			}
			again, problems := s.Records("p")
			got := again.Services()[name]
			got.Format = svc.Format
			if len(problems) > 0 || !alike(got, svc) {
				t.Errorf("%+v was written, and %+v %v read", svc, got, problems)
			}
			svc.Next()
			svc.With(Run{Run: svc.Next()})
			svc.Done()
		}
		first, _ := s.Projects()
		second, _ := s.Projects()
		if !reflect.DeepEqual(first, second) {
			t.Errorf("read twice: %+v and %+v", first, second)
		}
	})
}

// kept reports whether the content is where it was, or beside it.
func kept(t *testing.T, path string, content []byte) bool {
	t.Helper()
	beside, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range beside {
		if got, err := os.ReadFile(one); err == nil && bytes.Equal(got, content) {
			return true
		}
	}
	return false
}

// alike compares what is written of the two.
func alike(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// FuzzRead reads any file into any of the shapes. An error says where, and
// neither it nor the value depends on how often it is read.
func FuzzRead(f *testing.F) {
	f.Add([]byte("{\n \"format\": 1,\n \"instance\": 5\n}\n"))
	f.Add([]byte("{\"format\":1,\n}"))
	f.Add([]byte(`{"format":99}`))
	f.Add([]byte(`{"format":1,"env":["A=1",null],"sources":[{"path":"/x","content":"AAAA"}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "f.json")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var e Environment
		err := Read(path, &e)
		salvaged := Salvage(path, &e, time.Unix(0, 0))
		_, gone := os.Stat(path)
		var damaged *Damaged
		switch {
		case err == nil:
			if salvaged != nil || gone != nil {
				t.Errorf("then %v, and the file: %v", salvaged, gone)
			}
		case !errors.As(salvaged, &damaged) || !errors.Is(gone, fs.ErrNotExist):
			t.Errorf("%v, then %v, and the file: %v", err, salvaged, gone)
		default:
			if got, err := os.ReadFile(damaged.Aside); err != nil || !bytes.Equal(got, content) {
				t.Errorf("put aside was %q, %v", got, err)
			}
		}
	})
}
