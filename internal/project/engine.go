package project

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/runtime"
)

// Engine is what makes the containers of a project.
type Engine struct {
	Name string // "docker", "builtin", …; AutoEngine while none can be had
	Why  string // why this one, where that is worth a sentence
}

// AutoEngine is the engine of projects that name none.
const AutoEngine = "auto"

// engineVariable says which engine is used on this machine, whatever a project's
// file says.
const engineVariable = "LOCALD_ENGINE"

// wantedEngine is the engine that somebody has written, or AutoEngine.
func wantedEngine(conf *config.Project, inherit []string) (string, error) {
	wanted := conf.Engine
	for _, v := range inherit {
		value, ok := strings.CutPrefix(v, engineVariable+"=")
		if !ok || value == "" {
			continue
		}
		if !slices.Contains(config.Engines(), value) {
			return "", &runtime.Fault{
				Code: "config_invalid", Hint: "export " + engineVariable + "=" + AutoEngine,
				Err: fmt.Errorf("%s=%s: not one of %s", engineVariable, value, strings.Join(config.Engines(), ", ")), Kind: runtime.ErrInvalid,
			}
		}
		wanted = value
	}
	return wanted, nil
}

// lastEngine is the engine that containers of the project went to last, as far
// as that is known without asking anybody.
func (p *Project) lastEngine(conf *config.Project) Engine {
	name, err := wantedEngine(conf, p.inherits())
	if last := p.Title().Engine; (err != nil || name == AutoEngine) && last != "" {
		name = last
	}
	return Engine{Name: cmp.Or(name, AutoEngine)}
}

// holder is the engine that has containers or data of the project; empty when
// none has.
func (p *Project) holder(ctx context.Context, conf *config.Project) string {
	for _, s := range p.keeper.Snapshot() {
		if s.Phase.Live() && s.Info.ContainerID != "" {
			return s.Info.Engine
		}
	}
	for _, c := range conf.Services {
		if kept := p.records.postgres(c.Name); kept.Engine != "" {
			return kept.Engine
		}
	}
	return p.hasVolume(ctx, conf)
}

// hasVolume is the engine that has a named volume of the project. The last one is
// taken to have it while it cannot be asked.
func (p *Project) hasVolume(ctx context.Context, conf *config.Project) string {
	record := p.Record()
	silent := ""
	for _, engine := range record.Engines {
		for _, name := range volumes(conf) {
			has, err := p.machine.Containers(engine).HasVolume(ctx, p.id, name)
			if has && engine != AutoEngine {
				return engine
			}
			if err != nil && engine == record.Engine {
				silent = engine
			}
		}
	}
	return silent
}

// volumes is the named volumes of a project.
func volumes(conf *config.Project) (names []string) {
	for _, c := range conf.Services {
		for _, v := range c.Volumes {
			if !v.Bind {
				names = append(names, v.Source)
			}
		}
	}
	return names
}

// chooser finds the engine of a project's services while they are made. Nobody
// is asked before a service needs to know.
type chooser struct {
	project *Project
	conf    *config.Project
	engine  Engine
	known   bool
}

func (p *Project) chooser(conf *config.Project, inherit []string) (*chooser, error) {
	wanted, err := wantedEngine(conf, inherit)
	c := &chooser{project: p, conf: conf, engine: Engine{Name: wanted}, known: wanted != AutoEngine}
	if last := p.Title().Engine; !c.known && last != "" {
		c.engine.Name = last
	}
	return c, err
}

// stay keeps to the engine that the containers went to last: nobody is asked.
func (c *chooser) stay() { c.known = c.known || c.engine.Name != AutoEngine }

// ask settles it: what already has the project's containers or data, else
// whatever can be had.
func (c *chooser) ask(ctx context.Context) {
	if c.known {
		return
	}
	c.known = true
	if holder := c.project.holder(ctx, c.conf); holder != "" {
		c.engine = Engine{Name: holder}
	} else {
		c.engine = c.project.machine.Choose(ctx)
	}
}

// engineName is the engine's own name, empty while none has been needed.
func (s *service) engineName() string {
	if s.engine.Name == AutoEngine {
		return s.containers().Engine()
	}
	return s.engine.Name
}

// elsewhere is the fault of a managed Postgres whose data another engine has:
// an empty database would be made beside it.
func (s *service) elsewhere() error {
	has := s.project.records.postgres(s.conf.Name).Engine
	if has == "" || has == s.engineName() || s.engine.Name == AutoEngine {
		return nil
	}
	return &runtime.Fault{
		Code: "config_invalid", Hint: fmt.Sprintf("engine = %q, or delete the data: locald down --volumes %s", has, s.conf.Name),
		Err: fmt.Errorf("the data of %s is in %s, and the engine is %s now", s.conf.Name, has, s.engine.Name), Kind: runtime.ErrInvalid,
	}
}
