package daemon

import (
	"fmt"

	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// beside adds the directories of containers for which a process of ours stands,
// and their volumes. The containers themselves are processes.
func (s *search) beside(files []runtime.Files) {
	for _, f := range files {
		if f.Run == "" {
			t := s.fileOf(f, "volume")
			s.volume(&t)
			s.add(t)
			continue
		}
		t := s.fileOf(f, "container")
		t.Engine = f.Engine
		_, _, t.Run, _ = f.Run.Split()
		t.Detail = fmt.Sprintf("files of run %d", t.Run)
		if s.live.runs[f.Run] {
			t.State, t.Remedy = ipc.ThingUsed, ""
		}
		s.add(t)
	}
}

func (s *search) fileOf(f runtime.Files, kind string) thing {
	t := thing{project: f.Project, Thing: ipc.Thing{
		Kind: kind, State: ipc.ThingLeft, Name: f.Path, Service: f.Service, Bytes: sizeOf(f.Path), Remedy: s.removeFile(f.Path),
	}}
	if p, known := s.projectOf(f.Project); known {
		t.Project, t.Dir = p.Name, p.Dir
	}
	return t
}
