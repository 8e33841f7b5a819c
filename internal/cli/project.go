package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

// workdir is where a command begins to look: -C, or where it was typed.
func (a *app) workdir() string {
	if filepath.IsAbs(a.global.directory) {
		return a.global.directory
	}
	return filepath.Join(a.dir, a.global.directory)
}

// project is the project that a command is about.
func (a *app) project() (ipc.Project, error) {
	dir, file, err := config.Find(a.workdir(), a.global.file)
	if err != nil {
		return ipc.Project{}, err
	}
	p := ipc.Project{Dir: dir, Profiles: a.global.profiles}
	if file != filepath.Join(dir, config.FileName) {
		p.File = file
	}
	return p, nil
}

// recorded is the project that a command is about, for those that stop or show
// what runs: where the file or its directory is gone, the one on record there.
func (a *app) recorded() (ipc.Project, error) {
	p, err := a.project()
	if err == nil || a.global.file != "" {
		return p, err
	}
	places, unknown := a.places()
	if unknown != nil {
		return p, err
	}
	dir := filepath.Clean(a.workdir())
	if real, gone := filepath.EvalSymlinks(dir); gone == nil {
		dir = real
	}
	for _, known := range (state.Store{Dir: places.Dir}).Look().Projects {
		if known.Dir == dir {
			return ipc.Project{Dir: known.Dir, File: known.File, Profiles: a.global.profiles}, nil
		}
	}
	return p, err
}

// load reads the project's file.
func (a *app) load() (*config.Project, error) {
	return config.Load(config.Options{Dir: a.workdir(), File: a.global.file})
}

// completeServices offers the names of services where a command takes them.
func (a *app) completeServices(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	project, err := a.load()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range project.Services {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeService is completeServices for commands that take one, first.
func (a *app) completeService(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeServices(cmd, args, typed)
}
