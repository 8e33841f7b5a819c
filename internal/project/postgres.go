package project

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/postgres"
	"github.com/locald/locald/internal/probe"
	"github.com/locald/locald/runtime"
)

// volume is the volume of a managed Postgres that runs in a container.
func (s *service) volume() string { return s.conf.Name + "-data" }

// choosePostgres decides how a managed Postgres is run. Whether an engine answers
// is asked only when nothing nearer decides.
func (s *service) choosePostgres(engine func() error) error {
	c := s.conf.Postgres
	settings := postgres.Settings{
		Service: s.conf.Name, Version: c.Version, Database: c.Database, User: c.User, Password: c.Password,
		Init: c.Init, Runtime: c.Runtime, Image: s.conf.Image,
	}
	native, err := postgres.Major(s.data())
	if err != nil {
		return err
	}
	kept := s.project.records.postgres(s.conf.Name)
	found := postgres.DataFound{Dir: s.data(), NativeMajor: native, Volume: kept.Volume, VolumeMajor: kept.Major}
	installs := s.project.machine.Installs()
	choice, err := postgres.Choose(settings, found, installs, false)
	if err != nil && engine() == nil {
		choice, err = postgres.Choose(settings, found, installs, true)
	}
	if err != nil {
		return err
	}
	s.choice = choice
	if !choice.Native && kept.Volume && !kept.Making {
		if err := postgres.Unchanged(s.data(), settings); err != nil {
			return err
		}
	}
	s.credentials, err = postgres.LoadCredentials(s.data(), settings)
	return err
}

func (s *service) native() postgres.Native {
	return postgres.Native{
		Install: s.choice.Install, Credentials: s.credentials, Dir: s.data(),
		Port: s.ports()[""], Init: s.conf.Postgres.Init,
	}
}

func (s *service) container() postgres.Container {
	return postgres.Container{
		Dir: s.data(), Image: s.choice.Image, Credentials: s.credentials,
		HostPort: s.ports()[""], Init: s.conf.Postgres.Init, Volume: s.volume(),
	}
}

func (s *service) preparePostgres(ctx context.Context, base runtime.Spec, report func(runtime.Progress)) error {
	s.project.machine.Note(s.log(), base.Run, s.how()+": "+s.choice.Why)
	if s.choice.Native {
		return s.native().Create(ctx, s.runtime(), base, report)
	}
	if err := s.container().Create(); err != nil {
		return err
	}
	if err := s.runtime().Prepare(ctx, s.postgresSpec(base), report); err != nil {
		return err
	}
	s.pulled()
	before := s.project.records.postgres(s.conf.Name)
	if before.Making {
		// The init scripts run only while the data is made.
		report(runtime.Progress{Step: "making the data anew, which was not made to its end"})
		if err := s.containers().RemoveVolumes(ctx, s.project.id, s.conf.Name, s.volume()); err != nil {
			return err
		}
	}
	now := kept{Volume: true, Major: postgres.ImageMajor(s.choice.Image), Making: before.Making, Engine: s.engineName()}
	if !before.Volume { // one that is there although nothing is on record is not ours to make anew
		there, err := s.containers().HasVolume(ctx, s.project.id, s.volume())
		if err != nil {
			return err
		}
		now.Making = !there
	}
	return s.project.records.keepPostgres(s.conf.Name, now)
}

// madePostgres keeps what the container has made, which it has when it is ready
// for the first time: before that nobody is told that there is a database.
func (s *service) madePostgres() error {
	now := s.project.records.postgres(s.conf.Name)
	now.Making = false
	return s.project.records.keepPostgres(s.conf.Name, now)
}

func (s *service) postgresSpec(base runtime.Spec) runtime.Spec {
	if s.choice.Native {
		return s.native().Spec(base)
	}
	// This one reads its settings from files.
	base.Env = slices.DeleteFunc(slices.Clone(base.Env), func(v string) bool { return !strings.HasPrefix(v, "LOCALD_") })
	spec := s.container().Spec(base)
	spec.Image.Pull = s.pull()
	return spec
}

func (s *service) checkPostgres(ctx context.Context, in runtime.Instance, tell func(probe.Finding)) {
	port := s.ports()[""]
	ready := probe.Postgres{Addr: fmt.Sprintf("127.0.0.1:%d", port), User: s.credentials.User, Database: s.credentials.Database}
	if s.contained() {
		ready.Run(ctx, in, func(f probe.Finding) {
			if f.Ready {
				if err := s.madePostgres(); err != nil {
					f = probe.Finding{Detail: "it answers, and that cannot be written down: " + err.Error()}
				}
			}
			tell(f)
		})
		return
	}
	listening := false
	probe.Listen{Port: port}.Run(ctx, in, func(f probe.Finding) {
		listening = f.Ready
		if !f.Ready {
			tell(f)
		}
	})
	if listening {
		ready.Run(ctx, in, tell)
	}
}

// deleteData removes what a service keeps between its runs: never what is
// mounted from the host.
func (p *Project) deleteData(ctx context.Context, s *service) error {
	var volumes []string
	for _, v := range s.conf.Volumes {
		if !v.Bind {
			volumes = append(volumes, v.Source)
		}
	}
	if s.conf.Type == config.TypePostgres {
		if p.records.postgres(s.conf.Name).Volume {
			volumes = append(volumes, s.volume())
		}
		if err := os.RemoveAll(s.data()); err != nil {
			return fmt.Errorf("%s: data in %s: %w", s.conf.Name, filepath.Clean(s.data()), err)
		}
		p.records.setPostgres(s.conf.Name, kept{})
	}
	if len(volumes) == 0 {
		return nil
	}
	// An earlier up may have put them into another engine.
	problems := []error{s.containers().RemoveVolumes(ctx, p.id, s.conf.Name, volumes...)}
	for _, engine := range p.Title().Engines {
		if engine == s.engine.Name {
			continue
		}
		err := p.machine.Containers(engine).RemoveVolumes(ctx, p.id, s.conf.Name, volumes...)
		if !errors.Is(err, runtime.ErrUnavailable) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}
