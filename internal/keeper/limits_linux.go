package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The controllers by which a run is limited.
const (
	memoryController = "memory"
	cpuController    = "cpu"
	pidsController   = "pids"
)

var controllers = []string{memoryController, cpuController, pidsController}

// cpuPeriod is the time of which a run gets its share of processors, in
// microseconds, as Docker has it.
const cpuPeriod = 100_000

// setting is a file of a control group and what is written into it.
type setting struct {
	file     string
	value    int64
	after    string
	optional bool // not every kernel has it
}

// unified are a controller's settings in version 2. Swap is as much again as
// memory, as with Docker.
func (l *Limits) unified(controller string) []setting {
	switch controller {
	case memoryController:
		return []setting{{file: "memory.max", value: l.Memory}, {file: "memory.swap.max", value: l.Memory, optional: true}}
	case cpuController:
		return []setting{{file: "cpu.max", value: l.quota(), after: " " + strconv.Itoa(cpuPeriod)}}
	}
	return []setting{{file: "pids.max", value: l.PIDs}}
}

// separate are those in version 1.
func (l *Limits) separate(controller string) []setting {
	switch controller {
	case memoryController:
		return []setting{{file: "memory.limit_in_bytes", value: l.Memory}, {file: "memory.memsw.limit_in_bytes", value: 2 * l.Memory, optional: true}}
	case cpuController:
		return []setting{{file: "cpu.cfs_period_us", value: cpuPeriod}, {file: "cpu.cfs_quota_us", value: l.quota()}}
	}
	return []setting{{file: "pids.max", value: l.PIDs}}
}

func (l *Limits) quota() int64 { return int64(l.CPUs * cpuPeriod) }

// wants is what is asked of a controller, in words; empty is nothing. Without
// what must be, the run is not started.
func (l *Limits) wants(controller string) (what string, must bool) {
	switch {
	case controller == memoryController && l.Memory > 0:
		return "memory is to be limited", true
	case controller == cpuController && l.CPUs > 0:
		return "cpus are to be limited", true
	case controller == pidsController && l.PIDs > 0:
		return "processes are to be limited", false
	}
	return "", false
}

// bounds are the control groups in which a run's limits hold. A nil one is that
// of a run without.
type bounds struct {
	dirs    []string   // of version 1, or below the run's own group
	given   []*os.File // what the main process gets
	program string     // where that is to be forked, or empty: the run's own group
	kills   string     // the file that counts who was killed for memory
}

// limiter makes bounds. Forks are serial, and only they use it.
type limiter struct {
	groups *groups
	own    map[string]string // where those of version 1 are, by controller
	asked  bool
	has    map[string]bool // controllers of version 2 that runs can have
}

// newLimiter is that of a keeper whose own groups have a name.
func newLimiter(name string, groups *groups) *limiter {
	l := &limiter{groups: groups, own: map[string]string{}}
	memberships, mounts := readAll("/proc/self/cgroup"), readAll("/proc/self/mountinfo")
	for _, controller := range controllers {
		if g, ok := findGroup(controller, memberships, mounts); ok {
			l.own[controller] = filepath.Join(g.dir, name)
		}
	}
	return l
}

// separateGroup is the keeper's own group in a controller's hierarchy of version
// 1; empty where there is none.
func (l *limiter) separateGroup(controller string) string {
	if l == nil {
		return ""
	}
	return l.own[controller]
}

// close removes the keeper's groups of version 1.
func (l *limiter) close() {
	for _, controller := range controllers {
		if dir := l.separateGroup(controller); dir != "" {
			removeGroup(dir)
		}
	}
}

// make makes the groups of one run.
func (l *limiter) make(limits *Limits, number uint64) (b *bounds, err error) {
	b = &bounds{}
	defer func() {
		if err != nil {
			b.close()
			b.remove()
		}
	}()
	var below []string
	for _, controller := range controllers {
		what, must := limits.wants(controller)
		if what == "" {
			continue
		}
		if l.unified(controller) && number != 0 {
			below = append(below, controller)
			continue
		}
		err := b.separate(l.separateGroup(controller), groupName(number), controller, limits)
		if err != nil && must {
			return b, l.missing(what, controller, err)
		}
	}
	if len(below) > 0 {
		if err := b.below(filepath.Join(l.groups.dir, groupName(number)), below, limits); err != nil {
			return b, &Error{Code: "internal", Message: fmt.Sprintf("control group: %v", err)}
		}
	}
	return b, nil
}

var errNoController = errors.New("no control group has that controller")

// separate makes a group of version 1.
func (b *bounds) separate(own, name, controller string, limits *Limits) error {
	if own == "" {
		return errNoController
	}
	dir := filepath.Join(own, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	known := slices.Contains(b.dirs, dir) // two controllers may share a hierarchy
	if !known {
		b.dirs = append(b.dirs, dir)
	}
	if err := apply(dir, limits.separate(controller)); err != nil {
		return err
	}
	if controller == memoryController {
		b.kills = filepath.Join(dir, "memory.oom_control")
	}
	if known {
		return nil
	}
	tasks, err := os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	b.given = append(b.given, tasks)
	return nil
}

// below divides a run's own group of version 2. What has limits for groups below
// it can have no processes itself.
func (b *bounds) below(own string, controllers []string, limits *Limits) error {
	b.dirs = append(b.dirs, own)
	b.program = filepath.Join(own, "program")
	limited := filepath.Join(own, "limited")
	err := os.Mkdir(own, 0o755)
	for _, controller := range controllers {
		err = errors.Join(err, writeExisting(filepath.Join(own, "cgroup.subtree_control"), "+"+controller))
	}
	if err := errors.Join(err, os.Mkdir(b.program, 0o755), os.Mkdir(limited, 0o755)); err != nil {
		return err
	}
	for _, controller := range controllers {
		if err := apply(limited, limits.unified(controller)); err != nil {
			return err
		}
	}
	if slices.Contains(controllers, memoryController) {
		b.kills = filepath.Join(limited, "memory.events")
	}
	dir, err := os.Open(limited)
	if err != nil {
		return err
	}
	b.given = append(b.given, dir)
	return nil
}

func apply(dir string, settings []setting) error {
	for _, s := range settings {
		err := writeExisting(filepath.Join(dir, s.file), strconv.FormatInt(s.value, 10)+s.after)
		if err != nil && !s.optional {
			return err
		}
	}
	return nil
}

// close closes what was for the main process.
func (b *bounds) close() {
	if b == nil {
		return
	}
	for _, f := range b.given {
		_ = f.Close()
	}
	b.given = nil
}

// remove removes the groups, in which there is no process any more.
func (b *bounds) remove() {
	if b == nil {
		return
	}
	for _, dir := range b.dirs {
		removeGroup(dir)
	}
}

// killed reports whether the kernel has ended one of the run's processes because
// of its limit.
func (b *bounds) killed() bool {
	if b == nil || b.kills == "" {
		return false
	}
	var buf [512]byte
	return counter(readFile(b.kills, buf[:]), "oom_kill") > 0
}

// unified reports whether a group of version 2 can have the controller.
func (l *limiter) unified(controller string) bool {
	if l == nil || l.groups == nil {
		return false
	}
	if !l.asked {
		l.asked, l.has = true, l.groups.handDown()
	}
	return l.has[controller]
}

// itself is the group in which daemon and keeper are, where they had to leave
// their own for the sake of those below it.
const itself = groupPrefix + "itself"

// handDown gets the controllers for the groups of runs, as far as they have been
// handed down to us.
func (g *groups) handDown() map[string]bool {
	own := filepath.Dir(g.dir)
	has := map[string]bool{}
	for _, controller := range controllers {
		if !listed(own, "cgroup.controllers", controller) {
			continue
		}
		if !listed(own, "cgroup.subtree_control", controller) && !handTo(own, controller) {
			continue
		}
		has[controller] = writeExisting(filepath.Join(g.dir, "cgroup.subtree_control"), "+"+controller) == nil
	}
	return has
}

// handTo has a controller handed down to what is below a group. The kernel does
// not do that as long as processes are in it, and if all of them are locald's
// they can leave.
func handTo(own, controller string) bool {
	control := filepath.Join(own, "cgroup.subtree_control")
	err := writeExisting(control, "+"+controller)
	if errors.Is(err, unix.EBUSY) && leave(own) {
		err = writeExisting(control, "+"+controller)
	}
	return err == nil
}

// leave moves the processes of a group to one below it, if all are locald's.
func leave(own string) bool {
	b, err := os.ReadFile(filepath.Join(own, "cgroup.procs"))
	if err != nil {
		return false
	}
	pids := strings.Fields(string(b))
	for _, pid := range pids {
		if !sameProgram(pid) {
			return false
		}
	}
	dir := filepath.Join(own, itself)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false
	}
	for _, pid := range pids {
		// One that has ended meanwhile is not there either.
		_ = writeExisting(filepath.Join(dir, "cgroup.procs"), pid)
	}
	return true
}

func sameProgram(pid string) bool {
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	other, err := os.Stat("/proc/" + pid + "/exe")
	return errors.Is(err, fs.ErrNotExist) || err == nil && os.SameFile(own, other)
}

func listed(dir, file, controller string) bool {
	b, err := os.ReadFile(filepath.Join(dir, file))
	return err == nil && slices.Contains(strings.Fields(string(b)), controller)
}

// missing says why a limit cannot be had, and what helps.
func (l *limiter) missing(what, controller string, cause error) *Error {
	e := &Error{Code: "permission_denied", Hint: "delete the limit, or engine = \"docker\""}
	delegated := "systemd-run --user --scope -p Delegate=yes locald server restart"
	if os.Geteuid() == 0 {
		delegated = "systemd-run --scope -p Delegate=yes locald server restart"
	}
	unified := bytes.Contains(readAll("/proc/self/mountinfo"), []byte(" - cgroup2 "))
	_, own := groupOf("")
	switch {
	case l == nil:
		e.Message, e.Hint = fmt.Sprintf("%s, and %s=off keeps locald from using control groups", what, Groups), "unset "+Groups+"; locald server restart"
	case !errors.Is(cause, errNoController) && os.Geteuid() != 0:
		e.Message = fmt.Sprintf("%s, and this machine's control groups for %s are of version 1, which are root's alone: %v", what, controller, cause)
	case !errors.Is(cause, errNoController):
		e.Message = fmt.Sprintf("%s: %v", what, cause)
	case unified && own:
		e.Message, e.Hint = fmt.Sprintf("%s, and no control group with the controller %s is delegated to locald", what, controller), delegated
	default:
		e.Message = fmt.Sprintf("%s, and this machine shows no control groups with the controller %s", what, controller)
	}
	return e
}

func readAll(path string) []byte {
	b, _ := os.ReadFile(path) // what cannot be read says nothing
	return b
}

// limiting says which limits can be had here.
func limiting() Layer {
	l := Layer{Name: "limits", Detail: "memory, cpus and the number of processes of builtin containers cannot be limited: no control group with the controllers is delegated to locald"}
	if os.Getenv(Groups) == "off" {
		l.Detail = "not used: " + Groups + " is off"
		return l
	}
	separate := newLimiter(fmt.Sprintf("%sdoctor-%d-%d", groupPrefix, os.Getpid(), ticks()), nil)
	var can []string
	for _, controller := range controllers {
		if dir := separate.separateGroup(controller); dir != "" && os.Mkdir(dir, 0o755) == nil {
			removeGroup(dir)
			can = append(can, controller)
		} else if own, ok := delegatedGroup(); ok && listed(own.dir, "cgroup.controllers", controller) && canLeave(own, controller) {
			can = append(can, controller)
		}
	}
	if l.Here = len(can) > 0; l.Here {
		l.Detail = "of builtin containers: " + strings.Join(can, ", ")
	}
	return l
}

// canLeave reports whether handTo would succeed.
func canLeave(own group, controller string) bool {
	if unix.Access(filepath.Join(own.dir, "cgroup.subtree_control"), unix.W_OK) != nil {
		return false
	}
	// What is said of processes is not for the machine's root group, which has no type.
	if listed(own.dir, "cgroup.subtree_control", controller) || unix.Access(filepath.Join(own.dir, "cgroup.type"), unix.F_OK) != nil {
		return true
	}
	for pid := range strings.FieldsSeq(string(readAll(filepath.Join(own.dir, "cgroup.procs")))) {
		if !sameProgram(pid) {
			return false
		}
	}
	return true
}

// delegatedGroup is the group below which the keeper's are.
func delegatedGroup() (g group, ok bool) {
	g, ok = groupOf("")
	if filepath.Base(g.dir) == itself {
		g.dir = filepath.Dir(g.dir)
	}
	return g, ok
}
