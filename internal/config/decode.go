package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// keyFields are the serviceKeys without what they mean.
var keyFields = func() []field {
	fields := make([]field, len(serviceKeys))
	for i, k := range serviceKeys {
		fields[i] = k.field
	}
	return fields
}()

func (d *decoder) workdir(s *Service, v *value) {
	if !d.inContainer() {
		s.Workdir = inside(d.project.Dir, v.text)
		return
	}
	s.Workdir = v.text
	if !strings.HasPrefix(v.text, "/") {
		d.addTo(s.Name, v.pos, "", "services.%s.workdir: in a container it must be an absolute path", s.Name)
	}
}

func (d *decoder) dependsOn(s *Service, v *value) {
	for _, item := range v.items {
		if item.bad {
			continue
		}
		dep := Dependency{Service: item.text, Pos: item.pos}
		if item.kind == tableKind {
			name, condition := item.get("service"), item.get("condition")
			if item.lookup("service") == nil {
				d.addTo(s.Name, item.pos, `{ service = "…" }`, "services.%s.depends_on: which service is not written", s.Name)
			}
			if name == nil {
				continue
			}
			dep.Service = name.text
			if condition != nil {
				dep.Condition = condition.text
			}
		}
		s.DependsOn = append(s.DependsOn, dep)
	}
}

func (d *decoder) env(s *Service, v *value) {
	for _, e := range v.entries {
		if !e.value.bad {
			s.Env = append(s.Env, Var{Name: e.name, Value: plain(e.value), Pos: e.pos})
		}
	}
}

func (d *decoder) envFiles(s *Service, v *value) {
	s.EnvFiles = d.readEnvFiles(s.Name, "services."+s.Name+".env_file", v)
}

func (d *decoder) ports(s *Service, v *value) {
	s.Ports = make(map[string]int, len(v.entries))
	for _, e := range v.entries {
		if !e.value.bad {
			s.Ports[e.name] = int(e.value.number)
		}
	}
}

func (d *decoder) health(s *Service, v *value) {
	h := &s.Health
	h.Written = true
	if v.kind == stringKind {
		h.None, h.Notify = v.text == "none", v.text == "notify"
		return
	}
	first := ""
	for _, e := range v.entries {
		if slices.Contains(probes, e.name) {
			if first != "" {
				d.addTo(s.Name, e.pos, "", "services.%s.health has both %s and %s", s.Name, first, e.name)
			}
			first = e.name
		}
		if !e.value.bad {
			h.set(e)
		}
	}
}

func (h *Health) set(e entry) {
	v := e.value
	switch e.name {
	case "http":
		h.HTTP = v.text
	case "tcp":
		h.TCP = int(v.number)
		if v.truth {
			h.TCP = -1
		}
	case "command":
		h.Command = commandOf(v)
	case "log":
		h.Log = v.text
	case "notify":
		h.Notify = true
	case "interval":
		h.Interval = durationOf(v)
	case "timeout":
		h.Timeout = durationOf(v)
	case "retries":
		h.Retries = int(v.number)
	case "start_period":
		h.StartPeriod = durationOf(v)
	}
}

func (d *decoder) user(s *Service, v *value) {
	if s.Postgres == nil {
		s.User = v.text
		return
	}
	if err := databaseNameFormat(v.text); err != nil {
		d.addTo(s.Name, v.pos, "", "services.%s.user: %v", s.Name, err)
	}
	s.Postgres.User = v.text
}

func (d *decoder) labels(s *Service, v *value) {
	s.Labels = make(map[string]string, len(v.entries))
	for _, e := range v.entries {
		if e.value.bad {
			continue
		}
		if strings.HasPrefix(e.name, "dev.locald.") {
			d.addTo(s.Name, e.pos, "", "services.%s.labels: %s is one of locald's own", s.Name, e.name)
		}
		s.Labels[e.name] = plain(e.value)
	}
}

func (d *decoder) volumes(s *Service, v *value) {
	targets := map[string]bool{}
	for _, item := range v.items {
		if item.bad {
			continue
		}
		volume, err := ParseVolume(d.project.Dir, item.text)
		if err != nil {
			d.addTo(s.Name, item.pos, volumeExample, "services.%s.volumes: %s %v", s.Name, quote(item.text), err)
			continue
		}
		if targets[volume.Target] {
			d.addTo(s.Name, item.pos, "", "services.%s.volumes: %s is mounted twice", s.Name, volume.Target)
		}
		targets[volume.Target] = true
		if volume.Bind && !HasReference(volume.Source) && ReachesEngine(volume.Source) && !d.allows(DockerSocket) {
			d.addTo(s.Name, item.pos, `allow = ["`+DockerSocket+`"]`, "services.%s.volumes: %s lets the container command the engine, and so this whole machine", s.Name, quote(item.text))
		}
		s.Volumes = append(s.Volumes, volume)
	}
}

// allows reports whether the service that is being decoded has a word in allow.
func (d *decoder) allows(word string) bool {
	list := d.table.get("allow")
	return list != nil && slices.Contains(texts(list), word)
}

func (d *decoder) init(s *Service, v *value) {
	for _, item := range v.items {
		if item.bad {
			continue
		}
		path := inside(d.project.Dir, item.text)
		s.Postgres.Init = append(s.Postgres.Init, path)
		if !d.onDisk {
			continue
		}
		key := "services." + s.Name + ".init"
		switch info, err := os.Stat(path); {
		case err != nil:
			d.addTo(s.Name, item.pos, d.similar(path, fs.FileMode.IsRegular), "%s: %s %v", key, d.files.name(path), reason(err))
		case !info.Mode().IsRegular():
			d.addTo(s.Name, item.pos, "", "%s: %s is not a file", key, d.files.name(path))
		}
	}
}

// similar is a hint with a file of that kind whose name is near that of the
// missing one.
func (d *decoder) similar(path string, kind func(fs.FileMode) bool) string {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return ""
	}
	var names []string
	for _, e := range entries {
		if kind(e.Type()) {
			names = append(names, e.Name())
		}
	}
	if near := Nearest(filepath.Base(path), names); near != "" {
		return "did you mean " + d.files.name(filepath.Join(filepath.Dir(path), near)) + "?"
	}
	return ""
}
