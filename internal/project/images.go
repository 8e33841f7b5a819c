package project

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/env"
)

// ImageUse is an image that a service of the project is run from.
type ImageUse struct {
	Service string
	Engine  string // AutoEngine while none was needed
	Image   string // as the project writes it, references replaced
	Last    time.Time
}

// ImageUses is the images of the project's services: as they are run and as they
// are written or, while that cannot be read, as they were at the last up. A
// directory that is gone needs nothing, once nothing of it is wanted. The error
// says that it cannot be told.
func (p *Project) ImageUses(ctx context.Context) ([]ImageUse, error) {
	record := p.Record()
	if _, err := os.Stat(record.Dir); errors.Is(err, fs.ErrNotExist) && record.Wanted() == 0 {
		return nil, nil
	}
	conf, err := p.Config()
	if err != nil {
		kept, lost := p.machine.Store.Environment(p.id)
		if lost != nil {
			return nil, err
		}
		if conf, lost = recorded(record, kept); lost != nil {
			return nil, err
		}
	}
	engine, err := p.chooser(conf, p.inherits())
	if err != nil {
		return nil, err
	}
	made, err := p.make(ctx, engine, func(string) bool { return false })
	if err != nil {
		return nil, err
	}
	p.mu.RLock()
	placed := make([]*service, 0, len(p.services))
	for _, s := range p.services {
		placed = append(placed, s)
	}
	p.mu.RUnlock()
	others := func(name string) *service { return made[name] }
	var uses []ImageUse
	for _, s := range made {
		uses = s.uses(uses, others)
	}
	for _, s := range placed {
		uses = s.uses(uses, p.service)
	}
	return uses, nil
}

// uses adds the service's image, unless it is among them.
func (s *service) uses(all []ImageUse, others func(name string) *service) []ImageUse {
	if !s.contained() {
		return all
	}
	use := ImageUse{Service: s.conf.Name, Engine: s.engine.Name, Image: s.choice.Image}
	if s.conf.Type != config.TypePostgres {
		use.Image = s.imageName(s.conf)
		if c, err := env.Expanded(s.input(0, others)); err == nil {
			use.Image = s.imageName(c)
		}
	}
	for _, run := range s.project.records.get(s.conf.Name).Runs {
		use.Last = run.Start
	}
	for _, known := range all {
		if known == use {
			return all
		}
	}
	if use.Image != "" {
		all = append(all, use)
	}
	return all
}
