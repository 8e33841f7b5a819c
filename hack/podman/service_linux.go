package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long the service has to begin, and to end its containers.
const patience = 30 * time.Second

// conf is for a machine that runs no systemd and whose cgroups are of the first
// version, as many containers and virtual machines are; it suits others too.
const conf = `[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
`

// registries lets images be pulled from registries on the loopback without TLS,
// as Docker does.
const registries = `[[registry]]
location = "127.0.0.1"
insecure = true
`

// Service is one Podman service.
type Service struct {
	dir    string
	user   int // whose it is; 0 is root's
	lock   *os.File
	holder *exec.Cmd // of the mount namespace in which all of it is
	served *exec.Cmd
	log    *os.File
}

// Missing says what this machine lacks to run a service, empty when nothing is.
func Missing() string {
	if os.Getuid() != 0 {
		return "a Podman service of the tests' own needs root"
	}
	for _, program := range []string{"podman", "runc", "unshare", "nsenter", "setpriv", "docker"} {
		if _, err := exec.LookPath(program); err != nil {
			return "no " + program + " (hack/test-deps gets it)"
		}
	}
	return ""
}

// Start runs a service in a new directory and loads test images, by the names
// that hack/testimages gives them. One runs at a time on a machine, because the
// names and addresses of networks are the machine's: others wait.
func Start(ctx context.Context, images ...string) (*Service, error) {
	return start(ctx, 0, images)
}

// StartRootless is the same for an ordinary user, who has no name and whom
// nobody else on the machine is.
func StartRootless(ctx context.Context, images ...string) (*Service, error) {
	const first = 200000
	return start(ctx, first+os.Getpid(), images)
}

func start(ctx context.Context, user int, images []string) (*Service, error) {
	dir, err := os.MkdirTemp("", "podman")
	if err != nil {
		return nil, err
	}
	s := &Service{dir: dir, user: user}
	load := func(ctx context.Context) error { return s.load(ctx, images) }
	for _, step := range []func(context.Context) error{s.claim, s.prepare, s.Serve, load} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}
	return s, nil
}

// claim waits for its turn.
func (s *Service) claim(context.Context) (err error) {
	s.lock, err = os.OpenFile(filepath.Join(os.TempDir(), "locald-test-podman.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return unix.Flock(int(s.lock.Fd()), unix.LOCK_EX)
}

// prepare makes a mount namespace in which what Podman keeps is in the directory.
func (s *Service) prepare(ctx context.Context) (err error) {
	if s.log, err = os.Create(filepath.Join(s.dir, "log")); err != nil {
		return err
	}
	for _, err := range []error{
		os.WriteFile(filepath.Join(s.dir, "containers.conf"), []byte(conf), 0o644),
		os.WriteFile(filepath.Join(s.dir, "registries.conf"), []byte(registries), 0o644),
		os.Mkdir(filepath.Join(s.dir, "xdg"), 0o700),
		os.Chown(filepath.Join(s.dir, "xdg"), s.user, s.user),
		os.Chown(s.dir, s.user, s.user),
		os.Chmod(s.dir, 0o755),
	} {
		if err != nil {
			return err
		}
	}
	const hide = `set -e
for at in /var/lib/containers /run/containers /run/libpod /run/netns /etc/containers/networks /dev/shm; do
	mkdir -p "$at" "$0$at"
	mount --bind "$0$at" "$at"
done
chmod 1777 /dev/shm
echo ready
exec sleep infinity`
	s.holder = exec.CommandContext(context.WithoutCancel(ctx), "unshare", "--mount", "--propagation", "private", "sh", "-c", hide, s.dir)
	s.holder.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	s.holder.Stderr = s.log
	out, err := s.holder.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.holder.Start(); err != nil {
		return err
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("hide the machine's own Podman: %w: %s", err, s.said())
	}
	return nil
}

// command is a Podman command that the service would see as its own.
func (s *Service) command(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", s.holder.Process.Pid)}
	if s.user != 0 {
		enter = append(enter, As(s.user)...)
	}
	enter = append(enter, "podman")
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), s.Environ()...)
	cmd.Env = append(cmd.Env, "CONTAINERS_CONF="+filepath.Join(s.dir, "containers.conf"),
		"CONTAINERS_REGISTRIES_CONF="+filepath.Join(s.dir, "registries.conf"))
	return cmd
}

// Without takes a program away from the service, by its path.
func (s *Service) Without(ctx context.Context, program string) error {
	const without = `set -e
of=$(dirname "$1")
others=$(mktemp -d -p "$0")
cp -a "$of/." "$others"
rm "$others/$(basename "$1")"
mount --bind "$others" "$of"`
	hide := exec.CommandContext(ctx, "nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", s.holder.Process.Pid), "sh", "-c", without, s.dir, program)
	if out, err := hide.CombinedOutput(); err != nil {
		return fmt.Errorf("hide %s: %w: %s", program, err, out)
	}
	return nil
}

// As is the beginning of a command that a user executes.
func As(user int) []string {
	id := strconv.Itoa(user)
	return []string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups"}
}

// User is whose service it is.
func (s *Service) User() int { return s.user }

// Environ is what the user has in the environment.
func (s *Service) Environ() []string {
	if s.user == 0 {
		return nil
	}
	return []string{"HOME=" + s.dir, "XDG_RUNTIME_DIR=" + filepath.Join(s.dir, "xdg"), "TMPDIR=" + s.dir}
}

func (s *Service) socket() string { return filepath.Join(s.dir, "podman.sock") }

// Host is the address for DOCKER_HOST and CONTAINER_HOST.
func (s *Service) Host() string { return "unix://" + s.socket() }

// Serve runs the service, also again after Kill.
func (s *Service) Serve(ctx context.Context) error {
	s.served = s.command(context.WithoutCancel(ctx), "system", "service", "--time=0", s.Host())
	s.served.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	s.served.Stdout, s.served.Stderr = s.log, s.log
	if err := s.served.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "unix", s.socket())
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("podman system service: %w: %s", err, s.said())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the service without notice. Containers go on.
func (s *Service) Kill() {
	if s.served != nil {
		_ = unix.Kill(-s.served.Process.Pid, unix.SIGKILL) // a rootless one is two processes
		_ = s.served.Wait()
		s.served = nil
	}
}

func (s *Service) load(ctx context.Context, images []string) error {
	cmd := exec.CommandContext(ctx, "go", "run", "github.com/locald/locald/hack/testimages", "-only", strings.Join(images, ","))
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+s.Host(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load the test images: %w: %s", err, out)
	}
	return nil
}

// Close removes what the service has, ends it, and removes its directory.
func (s *Service) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var problems []error
	if s.holder != nil && s.holder.Process != nil {
		if out, err := s.command(ctx, "rm", "--all", "--force", "--time=0").CombinedOutput(); err != nil {
			problems = append(problems, fmt.Errorf("podman rm: %w: %s", err, out))
		}
		s.Kill()
		s.killRest()
		_ = s.holder.Process.Kill()
		_ = s.holder.Wait()
	}
	if s.log != nil {
		problems = append(problems, s.log.Close())
	}
	if s.lock != nil {
		problems = append(problems, s.lock.Close())
	}
	return errors.Join(append(problems, os.RemoveAll(s.dir))...)
}

// killRest ends what Podman leaves: the process that holds a user's namespace,
// and for five minutes one for each command that was run in a container.
func (s *Service) killRest() {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		pid, _ := strconv.Atoi(filepath.Base(process))
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if pid != s.holder.Process.Pid && s.owns(process) {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		_ = unix.Close(fd)
	}
}

// owns reports whether a process belongs to the service: to its mount namespace,
// or to the user that nobody else is.
func (s *Service) owns(process string) bool {
	if s.user != 0 {
		status, err := os.ReadFile(filepath.Join(process, "status"))
		return err == nil && bytes.Contains(status, fmt.Appendf(nil, "\nUid:\t%d\t", s.user))
	}
	its, err := os.Readlink(filepath.Join(process, "ns", "mnt"))
	own, ownErr := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", s.holder.Process.Pid))
	return err == nil && ownErr == nil && its == own
}

// said is what the service has written about itself.
func (s *Service) said() string {
	content, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte{'\n'})
	return strings.TrimSpace(string(bytes.Join(lines[max(0, len(lines)-5):], []byte{'\n'})))
}
