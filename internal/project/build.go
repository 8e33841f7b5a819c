package project

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/locald/locald/internal/build"
	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/runtime"
)

// unfit is what an id may have and a repository's name may not.
var unfit = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[_-]*_[_-]*`) })

// builtName is what the image of a service is called that has no name of its
// own. A tag may be any service's name; the id's end keeps projects apart.
func builtName(project, service string) string {
	return "locald/" + strings.TrimLeft(unfit().ReplaceAllString(project, "-"), "-") + ":" + service
}

// imageName is what the image of a service is called that is not managed; c is
// what is written of it.
func (s *service) imageName(c *config.Service) string {
	if c.Build == nil || c.Image != "" {
		return c.Image
	}
	return builtName(s.project.id, c.Name)
}

func built(b *config.Build) *runtime.Build {
	made := &runtime.Build{Context: b.Context, Dockerfile: b.Dockerfile, Target: b.Target}
	for _, v := range b.Args {
		made.Args = append(made.Args, v.Name+"="+v.Value)
	}
	return made
}

// sources is the files that the services of a project were last built from, as
// digests.
type sources struct {
	mu    sync.Mutex
	known map[string]string // by service
}

func (s *sources) of(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[name]
}

func (s *sources) set(name, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]string{}
	}
	s.known[name] = digest
}

// digestSources puts the digest of the files, as they are now, into the spec of
// a service that is built.
func (s *service) digestSources(ctx context.Context, spec runtime.Spec) error {
	b := spec.Image.Build
	if b == nil {
		return nil
	}
	var err error
	if b.Digest, err = digest(ctx, b.Context, b.Dockerfile); err == nil {
		s.project.sources.set(s.conf.Name, b.Digest)
	}
	return err
}

// compareSources reports whether files have changed since a service was built.
func (s *service) compareSources(ctx context.Context) (changed bool, err error) {
	b, before := s.conf.Build, s.project.sources.of(s.conf.Name)
	if b == nil || before == "" {
		return false, nil
	}
	now, err := digest(ctx, b.Context, b.Dockerfile)
	return now != before, err
}

func digest(ctx context.Context, dir, dockerfile string) (string, error) {
	files, err := build.Open(dir, dockerfile)
	if err != nil {
		return "", err
	}
	return files.Digest(ctx)
}
