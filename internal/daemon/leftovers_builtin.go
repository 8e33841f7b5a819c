package daemon

import (
	"fmt"

	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime/builtin"
)

// lookInBuiltin adds what containers that locald makes itself have written. The
// containers themselves are processes.
func (s *search) lookInBuiltin() {
	for _, m := range builtin.Survey(s.places.Dir) {
		t := thing{project: m.Project, Thing: ipc.Thing{
			Kind: m.Kind, State: ipc.ThingLeft, Name: m.Path, Engine: builtin.Name, Service: m.Service, Bytes: sizeOf(m.Path), Remedy: s.removeFile(m.Path),
		}}
		if p, known := s.projectOf(m.Project); known {
			t.Project, t.Dir = p.Name, p.Dir
		}
		switch m.Kind {
		case builtin.MadeContainer:
			_, _, t.Run, _ = m.Run.Split()
			t.Detail = fmt.Sprintf("what run %d has written over its image", t.Run)
			if s.live.runs[m.Run] {
				t.State, t.Remedy = ipc.ThingUsed, ""
			}
		case builtin.MadeVolume:
			s.volume(&t)
		}
		s.add(t)
	}
}
