package postgres

import (
	"slices"
	"strings"
)

// environ is an environment, "KEY=value" each, no name twice.
type environ []string

func (e environ) add(vars ...string) environ {
	for _, v := range vars {
		e = append(e.drop(name(v)), v)
	}
	return e
}

// addNew adds those that are not there yet.
func (e environ) addNew(vars ...string) environ {
	for _, v := range vars {
		if !slices.ContainsFunc(e, func(have string) bool { return name(have) == name(v) }) {
			e = append(e, v)
		}
	}
	return e
}

func (e environ) drop(key string) environ {
	return e.dropFunc(func(k string) bool { return k == key })
}

func (e environ) dropFunc(drop func(key string) bool) environ {
	return slices.DeleteFunc(slices.Clone(e), func(v string) bool { return drop(name(v)) })
}

// programs is the environment for Postgres's own programs: without what would
// change their meaning (PGDATA, PGPORT, PGOPTIONS…), with messages in English,
// and without NOTIFY_SOCKET: a server says that it is ready there, also one that
// only runs init scripts.
func (e environ) programs() environ {
	return e.dropFunc(func(key string) bool {
		return strings.HasPrefix(key, "PG") || strings.HasPrefix(key, "LC_") || key == "LANG" || key == "LANGUAGE" || key == "NOTIFY_SOCKET"
	}).add("LC_ALL=C")
}

func name(variable string) string {
	key, _, _ := strings.Cut(variable, "=")
	return key
}
