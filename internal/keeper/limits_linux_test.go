package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// enter is a script that goes where the limits hold.
const enter = `for fd in 3 4 5; do
	if test -d /proc/self/fd/$fd; then echo 0 >/proc/self/fd/$fd/cgroup.procs; elif test -e /proc/self/fd/$fd; then echo 0 >&$fd; fi
done; `

// bounded starts a script with limits, or skips a test where they cannot be had.
func limited(t *testing.T, k *Keeper, script string, limits Limits) *Child {
	t.Helper()
	r := shell(t, script)
	r.Limits = &limits
	c, err := k.Run(bounded(t), r)
	var missing *Error
	if errors.As(err, &missing) && missing.Code == "permission_denied" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLimits(t *testing.T) {
	t.Attr("promise", "P8")
	k := open(t)
	memory := Limits{Memory: 20 << 20, CPUs: 0.5, PIDs: 50}
	if exit := await(t, limited(t, k, enter+"exec "+hostileProgram(t)+" memory", memory)); exit.Signal != "SIGKILL" || exit.Memory != "yes" {
		t.Errorf("%+v; want a kill for memory", exit)
	}
	if exit := await(t, limited(t, k, enter+hostileProgram(t)+" memory; exit 137", memory)); exit.Code != 137 || exit.Memory != "yes" {
		t.Errorf("%+v; want the same from one who tells it like a shell", exit)
	}
	if exit := await(t, limited(t, k, enter+hostileProgram(t)+" memory; exit 4", memory)); exit.Code != 4 || exit.Memory != "part" {
		t.Errorf("%+v; want that a part was killed", exit)
	}
	if exit := await(t, limited(t, k, enter+"exit 4", memory)); exit.Code != 4 || exit.Memory != "" {
		t.Errorf("%+v; want nothing of memory", exit)
	}
	c := limited(t, k, enter+"cat /proc/self/cgroup; setsid sleep 60 & wait", memory)
	stopped(t, c, 0)
	for _, controller := range controllers {
		own, ok := groupOf(controller)
		if !ok {
			continue
		}
		made, _ := filepath.Glob(filepath.Join(own.dir, groupOfKeeper(k.Owner(), "*"), "*"))
		if i := slices.IndexFunc(made, func(name string) bool { return groupsBelow(filepath.Dir(name)) != nil }); i >= 0 {
			t.Errorf("groups are left: %v", made)
		}
	}
}

func TestLimitsWithoutGroups(t *testing.T) {
	t.Parallel()
	k, err := Start(t.Context(), Options{Dir: t.TempDir(), Owner: uniqueOwner(t), Log: os.Stderr, NoGroups: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	for limits, says := range map[Limits]string{
		{Memory: 1 << 20}: "memory is to be limited, and LOCALD_CGROUPS=off keeps locald from using control groups",
		{CPUs: 1}:         "cpus are to be limited, and LOCALD_CGROUPS=off keeps locald from using control groups",
	} {
		r := shell(t, "exit 0")
		r.Limits = &limits
		if _, err := k.Run(bounded(t), r); err == nil || err.Error() != says {
			t.Errorf("%+v: %v; want %s", limits, err, says)
		}
	}
	// What is nobody's wish is not missed.
	if exit := await(t, limited(t, k, "exit 3", Limits{PIDs: 100})); exit.Code != 3 {
		t.Errorf("%+v", exit)
	}
}

// Groups of version 1 that a keeper has left when it was killed are removed with
// its record, and no others.
func TestGroupsOfLimitsLeft(t *testing.T) {
	t.Parallel()
	own, ok := groupOf(memoryController)
	if !ok {
		t.Skip("the memory controller is not of version 1 here")
	}
	dir, owner := t.TempDir(), uniqueOwner(t)
	left, others := filepath.Join(own.dir, groupOfKeeper(owner, "1-2")), filepath.Join(own.dir, "keeper-test-"+owner)
	for _, group := range []string{filepath.Join(left, "2a"), others} {
		if err := os.MkdirAll(group, 0o755); err != nil {
			t.Skip(err)
		}
	}
	t.Cleanup(func() { removeGroup(others) })
	boot, err := Boot()
	if err != nil {
		t.Fatal(err)
	}
	r := record{Boot: boot, Owner: owner, Limits: []string{left, others, filepath.Join(own.dir, "locald-nope")}}
	if err := r.write(filepath.Join(dir, recordPrefix+"1"+recordSuffix)); err != nil {
		t.Fatal(err)
	}
	sweepLeft(t, dir, owner)
	if unix.Access(left, unix.F_OK) == nil {
		t.Errorf("%s is left", left)
	}
	if unix.Access(others, unix.F_OK) != nil {
		t.Errorf("%s is gone", others)
	}
	if strings.Contains(strings.Join(recordPaths(dir), " "), recordPrefix) {
		t.Error("the record is left")
	}
}

func recordPaths(dir string) []string {
	paths, _ := filepath.Glob(filepath.Join(dir, recordPrefix+"*"))
	return paths
}
