package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/locald/locald/internal/config"
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
