package config

import (
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const defaultDockerfile = "Dockerfile"

// build reads a directory, or a table of buildKeys.
func (d *decoder) build(s *Service, v *value) {
	context, dockerfile := ".", defaultDockerfile
	at, fileAt := v.pos, v.pos // what to blame
	s.Build = &Build{}
	if v.kind == stringKind {
		context = v.text
		s.At["build.context"] = s.At["build"]
	}
	if c := v.get("context"); c != nil {
		context, at, fileAt = c.text, c.pos, c.pos
	}
	if f := v.get("dockerfile"); f != nil {
		dockerfile, fileAt = f.text, f.pos
	}
	if t := v.get("target"); t != nil {
		s.Build.Target = t.text
	}
	if args := v.get("args"); args != nil {
		d.buildArgs(s, args)
	}
	key := "services." + s.Name + ".build"
	if strings.Contains(context, "://") || strings.HasPrefix(context, "git@") {
		d.addTo(s.Name, at, "git clone it, and write the directory", "%s: %s is not a directory of this machine", key, quote(context))
		return
	}
	s.Build.Context = inside(d.project.Dir, context)
	s.Build.Dockerfile = inside(s.Build.Context, dockerfile)
	wrong := slices.ContainsFunc(v.entries, func(e entry) bool { return e.value.bad })
	if d.onDisk && !wrong {
		d.checkBuild(s, key, at, fileAt)
	}
}

func (d *decoder) buildArgs(s *Service, args *value) {
	for _, e := range args.entries {
		if !e.value.bad {
			s.Build.Args = append(s.Build.Args, Var{Name: e.name, Value: plain(e.value), Pos: e.pos})
			s.At["build.args."+e.name] = e.pos
		}
	}
}

// checkBuild reports a context or a Dockerfile that is not there.
func (d *decoder) checkBuild(s *Service, key string, at, fileAt Pos) {
	b := s.Build
	switch info, err := os.Stat(b.Context); {
	case err != nil:
		d.addTo(s.Name, at, cmp.Or(d.similar(b.Context, fs.FileMode.IsDir), "mkdir -p "+d.files.name(b.Context)), "%s: %s %v", key, d.files.name(b.Context), reason(err))
		return
	case !info.IsDir():
		d.addTo(s.Name, at, `{ dockerfile = "`+filepath.Base(b.Context)+`" }`, "%s: %s is not a directory", key, d.files.name(b.Context))
		return
	}
	switch info, err := os.Stat(b.Dockerfile); {
	case err != nil:
		d.addTo(s.Name, fileAt, cmp.Or(d.similar(b.Dockerfile, fs.FileMode.IsRegular), `build = { dockerfile = "…" }`), "%s: %s %v", key, d.files.name(b.Dockerfile), reason(err))
	case !info.Mode().IsRegular():
		d.addTo(s.Name, fileAt, "", "%s: %s is not a file", key, d.files.name(b.Dockerfile))
	}
}
