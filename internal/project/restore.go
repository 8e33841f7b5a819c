package project

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/supervisor"
)

// Restore starts what is wanted, with the configuration as it now is or, when
// that is broken, as it was recorded. note says what people should know, beside
// the logs of the services.
func (p *Project) Restore(ctx context.Context, note func(text string)) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	record := p.Record()
	var told []string
	kept, err := p.machine.Store.Environment(p.id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		note(err.Error())
	}
	conf, err := p.Config()
	if err != nil {
		broken := err
		conf, err = recorded(record, kept)
		if err != nil {
			return fmt.Errorf("%s: not restored: %w", record.Name, broken)
		}
		told = append(told, fmt.Sprintf("restored as it was recorded, because the configuration is now broken: %v", broken))
		note(told[0])
		p.mu.Lock()
		p.config, p.stamp = conf, ""
		p.mu.Unlock()
	}
	p.mu.Lock()
	p.env = kept.Env
	p.mu.Unlock()
	p.retain(conf)
	engine, err := p.chooser(conf, kept.Env)
	if err != nil {
		return err
	}
	engine.stay()
	made, err := p.make(ctx, engine, func(name string) bool { return record.Wants[name] })
	if err != nil {
		return err
	}
	p.place(made, nil)
	var wishes []supervisor.Wish
	for _, c := range conf.Services {
		if !record.Wants[c.Name] {
			continue
		}
		known := p.records.get(c.Name)
		wishes = append(wishes, supervisor.Wish{
			Name: c.Name, Up: true, Service: made[c.Name].supervised(), Run: known.Next(),
			Done:   c.Type == config.TypeTask && known.Done(),
			Streak: p.records.streak(c.Name, time.Now()),
			Alone:  true, // of what it depends on only what is wanted too will come
		})
	}
	p.keeper.Apply(wishes)
	for _, w := range wishes {
		for _, text := range told {
			p.machine.Note(p.Log(w.Name), w.Run, text)
		}
	}
	return nil
}

// recorded is a project's configuration as it was at the last up.
func recorded(record state.Project, kept state.Environment) (*config.Project, error) {
	sources := make([]config.Source, len(kept.Sources))
	for i, s := range kept.Sources {
		sources[i] = config.Source{Path: s.Path, Content: s.Content}
	}
	return config.Load(config.Options{Dir: record.Dir, File: record.File, Read: config.Recorded(sources)})
}

// Lost closes the record of a run whose end nobody saw.
func (p *Project) Lost(name string, run int, why string) {
	p.records.change(name, func(s *state.Service) {
		if n := len(s.Runs); n > 0 && s.Runs[n-1].Run == run && s.Runs[n-1].End.IsZero() {
			lost := s.Runs[n-1]
			lost.End, lost.Reason = time.Now(), why
			if lost.Start.IsZero() {
				lost.Start = lost.End // it may have started
			}
			*s = s.With(lost)
		}
	})
}
