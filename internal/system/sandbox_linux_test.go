package system

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
)

// limit bounds every wait, so that what hangs fails with a name.
const limit = 60 * time.Second

// markVar is in the environment of the clients, and so of everything that they
// bring about.
const markVar = "SYSTEM_TEST_MARK"

// sandbox is one daemon's world: a state directory, and a project. When the
// test is over it proves that nothing of it is left.
type sandbox struct {
	t       *testing.T
	root    string
	dir     string // the project's
	mark    string
	environ []string
	as      func(*exec.Cmd) // who the clients are; nil is who the tests are
	last    []func() error  // what the daemon needs, ended after it
}

func newSandbox(t *testing.T, toml string) *sandbox {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return sandboxAt(t, root, filepath.Join(root, "data"), toml)
}

// sandboxAt keeps the state below data.
func sandboxAt(t *testing.T, root, data, toml string) *sandbox {
	t.Helper()
	s := &sandbox{t: t, root: root, dir: filepath.Join(root, "project"), mark: rand.Text()}
	s.environ = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + root, "XDG_DATA_HOME=" + data, "PROGRAM=" + service(),
		"LANG=C.UTF-8", markVar + "=" + s.mark,
	}
	for _, name := range []string{"DOCKER_HOST", "XDG_RUNTIME_DIR"} {
		if value, set := os.LookupEnv(name); set {
			s.environ = append(s.environ, name+"="+value)
		}
	}
	for _, dir := range []string{s.dir, data} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.write("locald.toml", toml)
	t.Cleanup(s.end)
	return s
}

func (s *sandbox) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sandbox) places() state.Places {
	s.t.Helper()
	p, err := state.Locate(func(name string) string {
		for _, entry := range s.environ {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value
			}
		}
		return ""
	}, "s")
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// instance is the label that everything of this sandbox has in an engine;
// empty before there was a daemon.
func (s *sandbox) instance() string {
	places := s.places()
	if _, err := os.Stat(filepath.Join(places.Dir, "instance.json")); err != nil {
		return ""
	}
	owner, err := state.Store{Dir: places.Dir}.Owner()
	if err != nil {
		s.t.Error(err)
	}
	return string(owner)
}

// result is what became of a command.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("exit %d after %v\nstdout: %s\nstderr: %s", r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

// command is locald with these arguments, in the project.
func (s *sandbox) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, locald(), append([]string{"--sandbox", "s"}, args...)...)
	cmd.Dir, cmd.Env = s.dir, s.environ
	if s.as != nil {
		s.as(cmd)
	}
	return cmd
}

// try runs a command to its end, whatever it is.
func (s *sandbox) try(args ...string) result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), limit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := s.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		s.t.Errorf("locald %s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), time.Since(began)}
}

// run is try for what must succeed.
func (s *sandbox) run(args ...string) result {
	s.t.Helper()
	r := s.try(args...)
	if r.code != 0 {
		s.t.Fatalf("locald %s: %v", strings.Join(args, " "), r)
	}
	return r
}

// status is what "locald status --json" prints.
func (s *sandbox) status() ipc.Status {
	s.t.Helper()
	var status ipc.Status
	r := s.run("status", "--json", "--reveal")
	if err := json.Unmarshal([]byte(r.stdout), &status); err != nil {
		s.t.Fatalf("%v: %v", err, r)
	}
	return status
}

func of(status ipc.Status, name string) ipc.Service {
	i := slices.IndexFunc(status.Services, func(s ipc.Service) bool { return s.Name == name })
	if i < 0 {
		return ipc.Service{}
	}
	return status.Services[i]
}

// until reads "locald status --watch" until the project is as it should be.
func (s *sandbox) until(what string, is func(ipc.Status) bool) ipc.Status {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	cmd := s.command(ctx, "status", "--watch", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }() // ended by us
	var last ipc.Status
	for lines := json.NewDecoder(out); ; {
		var now ipc.Status // a key that is left out must not keep its value
		if err := lines.Decode(&now); err != nil {
			s.t.Fatalf("never %s: %v: %+v", what, err, last)
		}
		if is(now) {
			return now
		}
		last = now
	}
}

// kill sends SIGKILL and returns when the process is gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	signal(t, pid, unix.SIGKILL)
}

// signal sends a signal that ends the process, and returns when it is gone.
func signal(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	gone(t, fd)
}

func gone(t *testing.T, pidfd int) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
	}
	t.Fatal("the process does not end")
}

// process is one that carries the mark of a sandbox.
type process struct {
	pid, parent int
	argv        string
	env         map[string]string
}

func (p process) String() string { return fmt.Sprintf("%d %s", p.pid, p.argv) }

// run is the service and the run that the process belongs to; empty when it is
// of none.
func (p process) run() string {
	if p.env["LOCALD_MARK"] == "" {
		return ""
	}
	return p.env["LOCALD_SERVICE"] + " " + p.env["LOCALD_RUN"]
}

// processes is everything that carries the sandbox's mark or works in it.
func (s *sandbox) processes() []process {
	s.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		s.t.Fatal(err)
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		environ, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil {
			continue // it ended, or is a zombie
		}
		// Postgres uses the room of its environment for its title.
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if !bytes.Contains(environ, []byte(s.mark)) && !strings.HasPrefix(cwd, s.root+"/") {
			continue
		}
		argv, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if len(argv) == 0 {
			continue // it ends at this moment: its memory is gone already
		}
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
		p := process{pid: pid, argv: strings.TrimSpace(strings.ReplaceAll(string(argv), "\x00", " ")), env: map[string]string{}}
		if _, rest, ok := strings.Cut(string(stat), ") "); ok {
			if strings.HasPrefix(rest, "Z") {
				continue
			}
			p.parent, _ = strconv.Atoi(strings.Fields(rest)[1])
		}
		for entry := range strings.SplitSeq(string(environ), "\x00") {
			if name, value, ok := strings.Cut(entry, "="); ok {
				p.env[name] = value
			}
		}
		found = append(found, p)
	}
	return found
}

// keeper is the daemon's child that holds the services' processes.
func (s *sandbox) keeper(daemon int) int {
	s.t.Helper()
	for _, p := range s.processes() {
		if p.parent == daemon && strings.HasPrefix(p.argv, "locald keeper") {
			return p.pid
		}
	}
	s.t.Fatalf("daemon %d has no keeper among %v", daemon, s.processes())
	return 0
}

// exactly proves that what runs is what the status says: each service once,
// one daemon, one keeper, what speaks to engines, and nothing else.
func (s *sandbox) exactly(status ipc.Status) {
	s.t.Helper()
	inContainer := map[string]string{}
	inProcess := map[string]int{}
	for _, svc := range status.Services {
		switch {
		case svc.State != "running":
		case svc.ContainerID != "":
			inContainer[svc.Name] = svc.ContainerID
		default:
			inProcess[svc.Name+" "+strconv.Itoa(svc.Run)] = svc.PID
		}
	}
	daemons, keepers, speakers := 0, 0, 0
	all := s.processes()
	for _, p := range all {
		switch run := p.run(); {
		case p.pid == status.Daemon.PID:
			daemons++
		case strings.HasPrefix(p.argv, "locald keeper") && p.parent == status.Daemon.PID:
			keepers++
		case strings.HasPrefix(p.argv, "locald engines") && p.parent == status.Daemon.PID:
			speakers++
		case run != "" && inProcess[run] != 0:
		case strings.HasPrefix(p.argv, "postgres") && s.below(p, inProcess, all):
		default:
			s.t.Errorf("a leftover: %v", p)
		}
	}
	if daemons != 1 || keepers > 1 || speakers > 1 {
		s.t.Errorf("%d daemons, %d keepers and %d that speak to engines among %v", daemons, keepers, speakers, all)
	}
	for run, pid := range inProcess {
		if !slices.ContainsFunc(all, func(p process) bool { return p.pid == pid && p.run() == run }) {
			s.t.Errorf("process %d of run %s is not there: %v", pid, run, all)
		}
	}
	s.containersAre(inContainer)
}

// below reports whether a process is, or descends from, one of the main ones.
func (s *sandbox) below(p process, mains map[string]int, all []process) bool {
	for _, pid := range mains {
		if p.pid == pid || p.parent == pid {
			return true
		}
	}
	i := slices.IndexFunc(all, func(other process) bool { return other.pid == p.parent })
	return i >= 0 && s.below(all[i], mains, all)
}

// containersAre proves that the engine has these containers of ours, by
// service, and no other, ended ones included.
func (s *sandbox) containersAre(want map[string]string) {
	s.t.Helper()
	if len(want) == 0 && !engine() {
		return
	}
	lines := strings.Fields(s.docker("container", "ls", "-a", "--no-trunc", "--filter", "label=dev.locald.instance="+s.instance(),
		"--format", `{{.Label "dev.locald.service"}}={{.ID}}={{.State}}`))
	for name, id := range want {
		if entry := name + "=" + id + "=running"; !slices.Contains(lines, entry) {
			s.t.Errorf("container %s is not there: %v", entry, lines)
		}
	}
	if len(lines) != len(want) {
		s.t.Errorf("containers %v, want %v", lines, want)
	}
}

// inEngine reports whether the containers of a status run. One that somebody has
// just removed is told of a moment later.
func (s *sandbox) inEngine(status ipc.Status) bool {
	s.t.Helper()
	for _, svc := range status.Services {
		if svc.State != "running" || svc.ContainerID == "" {
			continue
		}
		out, err := exec.CommandContext(s.t.Context(), "docker", "container", "inspect", "-f", "{{.State.Running}}", svc.ContainerID).Output()
		if err != nil || strings.TrimSpace(string(out)) != "true" {
			return false
		}
	}
	return true
}

func engine() bool {
	_, err := exec.LookPath("docker")
	return err == nil && exec.Command("docker", "version").Run() == nil
}

func (s *sandbox) docker(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// end stops the daemon as a user does, and proves that nothing is left.
func (s *sandbox) end() {
	s.t.Helper()
	if r := s.try("server", "stop"); r.code != 0 {
		s.t.Errorf("server stop: %v", r)
	}
	for _, end := range s.last {
		if err := end(); err != nil {
			s.t.Error(err)
		}
	}
	for _, p := range s.processes() {
		s.t.Errorf("left over: process %v", p)
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // it carries our mark
	}
	if instance := s.instance(); instance != "" && engine() {
		s.nothingIn(instance)
	}
	if s.t.Failed() {
		if log, err := os.ReadFile(s.places().Log); err == nil {
			s.t.Logf("the daemon's log, its end:\n%s", tail(string(log), 60))
		}
	}
}

// nothingIn proves that the engine has nothing with our label, and removes
// what a failed test left. Volumes are data and stay after a stop.
func (s *sandbox) nothingIn(instance string) {
	filter := "label=dev.locald.instance=" + instance
	for _, kind := range []string{"container", "network", "volume"} {
		list := []string{kind, "ls", "-q", "--filter", filter}
		remove := []string{kind, "rm", "-f"}
		if kind == "container" {
			list, remove = append(list, "-a"), append(remove, "-v")
		}
		ids := strings.Fields(s.docker(list...))
		if len(ids) == 0 {
			continue
		}
		if kind != "volume" {
			s.t.Errorf("left over: %s %v", kind, ids)
		}
		s.docker(append(remove, ids...)...)
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// notes is what a service wrote into its file: see testdata/service, "once".
func (s *sandbox) notes(name string) []string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// starts counts the runs in a service's file, and fails at an overlap.
func (s *sandbox) starts(name string) (runs int) {
	s.t.Helper()
	for _, line := range s.notes(name) {
		switch word, _, _ := strings.Cut(line, " "); word {
		case "run":
			runs++
		case "overlap":
			s.t.Errorf("%s: two copies at once: %s", name, line)
		}
	}
	return runs
}
