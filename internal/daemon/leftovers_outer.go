package daemon

import (
	"fmt"

	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime/builtin"
	"github.com/locald/locald/runtime/containerd"
	"github.com/locald/locald/runtime/outer"
)

// lookBesideEngines adds the directories of containers for which a process of ours
// stands, and their volumes. The containers themselves are processes.
func (s *search) lookBesideEngines() {
	for engine, folder := range map[string]string{builtin.Name: builtin.Folder, containerd.Name: containerd.Name} {
		for _, l := range outer.Containers(s.places.Dir, folder) {
			t := s.beside(l, "container")
			t.Engine = engine
			_, _, t.Run, _ = l.Run.Split()
			t.Detail = fmt.Sprintf("files of run %d", t.Run)
			if s.live.runs[l.Run] {
				t.State, t.Remedy = ipc.ThingUsed, ""
			}
			s.add(t)
		}
	}
	for _, l := range (outer.Volumes{Dir: s.places.Dir}).List() {
		t := s.beside(l, "volume")
		s.volume(&t)
		s.add(t)
	}
}

func (s *search) beside(l outer.Left, kind string) thing {
	t := thing{project: l.Project, Thing: ipc.Thing{
		Kind: kind, State: ipc.ThingLeft, Name: l.Path, Service: l.Service, Bytes: sizeOf(l.Path), Remedy: s.removeFile(l.Path),
	}}
	if p, known := s.projectOf(l.Project); known {
		t.Project, t.Dir = p.Name, p.Dir
	}
	return t
}
