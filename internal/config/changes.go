package config

import (
	"reflect"
	"slices"
)

// Changes says, in words and without values, what of a service differs so that
// it takes a restart to take effect; it is empty when nothing does. Restart,
// backoff, max_restarts, stop_timeout, profiles, scheme, init and the condition
// of a dependency need none. What other services and the project's own files
// come to is not looked at; see ProjectChanges.
func Changes(old, new *Service) []string {
	var changes []string
	for _, k := range serviceKeys {
		if !k.restarts {
			continue
		}
		switch k.name {
		case "env":
			changes = append(changes, changedVars("env ", old.Env, new.Env)...)
		case "env_file":
			changes = append(changes, changedFiles(old.EnvFiles, new.EnvFiles)...)
		case "depends_on":
			if !slices.EqualFunc(old.DependsOn, new.DependsOn, func(a, b Dependency) bool { return a.Service == b.Service }) {
				changes = append(changes, "depends_on changed")
			}
		default:
			if !reflect.DeepEqual(k.get(old), k.get(new)) {
				changes = append(changes, k.name+" changed")
			}
		}
	}
	return changes
}

// ProjectChanges is Changes for what every process service of a project gets:
// its name, its env_file and what is inherited.
func ProjectChanges(old, new *Project) []string {
	var changes []string
	if old.Name != new.Name {
		changes = append(changes, "project name changed")
	}
	if old.Inherit.All != new.Inherit.All || !slices.Equal(old.Inherit.Names, new.Inherit.Names) {
		changes = append(changes, "inherit_env changed")
	}
	return append(changes, changedFiles(old.EnvFiles, new.EnvFiles)...)
}

// changedVars names the variables that differ, in the order of their names.
func changedVars(prefix string, old, new []Var) []string {
	before, after := lastOf(old), lastOf(new)
	var changes []string
	for name, value := range after {
		if was, ok := before[name]; !ok {
			changes = append(changes, prefix+name+" added")
		} else if was != value {
			changes = append(changes, prefix+name+" changed")
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			changes = append(changes, prefix+name+" removed")
		}
	}
	slices.Sort(changes)
	return changes
}

func lastOf(vars []Var) map[string]string {
	values := make(map[string]string, len(vars))
	for _, v := range vars {
		values[v.Name] = v.Value
	}
	return values
}

func changedFiles(old, new []EnvFile) []string {
	paths := func(files []EnvFile) []string {
		list := make([]string, len(files))
		for i, f := range files {
			list[i] = f.Path
		}
		return list
	}
	if !slices.Equal(paths(old), paths(new)) {
		return []string{"env_file changed"}
	}
	var changes []string
	for i := range old {
		changes = append(changes, changedVars(old[i].Path+": ", old[i].Vars, new[i].Vars)...)
	}
	return changes
}
