package container_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
)

func environment(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

// sockets makes a directory with a name short enough for sockets.
func sockets(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestEachWayToHaveNoEngineHasItsOwnMessageAndRemedy(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P16 F40")
	dir := sockets(t)
	dead := filepath.Join(dir, "dead.sock")
	listener, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = listener.Close()
	silent := filepath.Join(dir, "silent.sock")
	mute, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mute.Close() }) // after the subtests, which are parallel

	for _, test := range []struct{ name, host, want, hint string }{
		{"not there", "unix:///no/such/docker.sock", "is not installed or not running: there is no /no/such/docker.sock", "unset DOCKER_HOST"},
		{"refused", "unix://" + dead, "is not running: nobody answers at " + dead, "docker"},
		{"hangs", "unix://" + silent, "hangs: docker did not answer within 5s", "docker"},
		{"no TLS", "tcp://192.0.2.1:2375", "without TLS", "DOCKER_TLS_VERIFY"},
		{"scheme", "ssh://host", `scheme "ssh"`, "ssh -fNL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := container.New(container.Options{Getenv: environment(map[string]string{"DOCKER_HOST": test.host})})
			defer r.Close()
			begun := time.Now()
			_, err := r.List(t.Context(), "nobody")
			if took := time.Since(begun); took > 7*time.Second {
				t.Errorf("it took %v", took)
			}
			if !errors.Is(err, runtime.ErrUnavailable) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("List = %v; want ErrUnavailable with %q", err, test.want)
			}
			if fault := new(runtime.Fault); !errors.As(err, &fault) || fault.Code != "engine_unavailable" || !strings.Contains(fault.Hint, test.hint) {
				t.Errorf("fault = %+v; want engine_unavailable and a hint with %q", fault, test.hint)
			}
		})
	}
}

func TestPodmanThatDoesNotRunHasACommandThatStartsIt(t *testing.T) {
	t.Parallel()
	_, missing := exec.LookPath("podman")
	run := sockets(t)
	if _, err := os.Stat("/run/podman/podman.sock"); err == nil {
		t.Skip("this machine has a Podman service of its own")
	}
	for _, test := range []struct {
		name, variable, value, socket string
		hints                         []string // with systemd or without
	}{
		{"named", "CONTAINER_HOST", "unix:///no/such/podman.sock", "/no/such/podman.sock", []string{"podman system service --time=0 unix:///no/such/podman.sock &"}},
		{
			"one's own", "XDG_RUNTIME_DIR", run, run + "/podman/podman.sock",
			[]string{"systemctl --user start podman.socket", "podman system service --time=0 unix://" + run + "/podman/podman.sock &"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := container.New(container.Options{Engine: "podman", Getenv: environment(map[string]string{test.variable: test.value})})
			defer r.Close()
			_, err := r.List(t.Context(), "nobody")
			fault := new(runtime.Fault)
			if !errors.As(err, &fault) || fault.Code != "engine_unavailable" || !strings.Contains(err.Error(), "there is no "+test.socket) {
				t.Fatalf("List = %v; want engine_unavailable with %s", err, test.socket)
			}
			if missing != nil {
				test.hints = []string{"sudo apt-get install podman", "brew install podman; podman machine init; podman machine start"}
			}
			if !slices.Contains(test.hints, fault.Hint) {
				t.Errorf("hint = %q; want one of %q", fault.Hint, test.hints)
			}
		})
	}
}

// The test runs itself as a user that may not open the socket; root may open
// any.
func TestPermissionDeniedHasItsOwnRemedy(t *testing.T) {
	t.Attr("promise", "P16 F40")
	const variable = "LOCALD_TEST_BARRED_SOCKET"
	if host := os.Getenv(variable); host != "" {
		r := container.New(container.Options{Getenv: environment(map[string]string{"DOCKER_HOST": host})})
		defer r.Close()
		_, err := r.List(t.Context(), "nobody")
		fault := new(runtime.Fault)
		if !errors.As(err, &fault) || fault.Code != "engine_unavailable" || !strings.Contains(err.Error(), "no permission to open") ||
			!strings.Contains(fault.Hint, "sudo usermod -aG docker $USER") {
			t.Errorf("List = %v, fault %+v; want that there is no permission, and usermod", err, fault)
		}
		return
	}
	dir := sockets(t)
	path := filepath.Join(dir, "docker.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	itself := filepath.Join(dir, "test")
	content, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(path, 0), os.Chmod(dir, 0o755), os.WriteFile(itself, content, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	command := exec.CommandContext(t.Context(), itself, "-test.run", "^"+t.Name()+"$")
	command.Dir = dir
	command.Env = append(os.Environ(), variable+"=unix://"+path)
	if os.Getuid() == 0 {
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestTheChosenDockerContextIsUsedAndNoOther(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	config := t.TempDir()
	write := func(name, host string) {
		sum := sha256.Sum256([]byte(name))
		dir := filepath.Join(config, "contexts", "meta", hex.EncodeToString(sum[:]))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		meta := fmt.Sprintf(`{"Name":%q,"Endpoints":{"docker":{"Host":%q}}}`, name, host)
		if err := os.WriteFile(filepath.Join(dir, "meta.json"), []byte(meta), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("colima", p.Host())
	write("gone", "unix:///no/such/docker.sock")
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"currentContext":"colima"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"DOCKER_CONFIG": config, "HOME": config}

	needEngine(t)
	found := container.Discover(t.Context(), environment(env), "auto")
	if len(found) != 1 || !found[0].Used || found[0].Host != "unix://"+strings.TrimPrefix(p.Host(), "unix://") || found[0].Engine != "docker" || found[0].Source != "docker context colima" || found[0].Version == "" {
		t.Errorf("Discover = %+v; want the context's engine only", found)
	}
	env["DOCKER_CONTEXT"] = "gone"
	found = container.Discover(t.Context(), environment(env), "auto")
	if len(found) != 1 || found[0].Used || found[0].Err == nil || !strings.Contains(found[0].Why, "docker context gone") {
		t.Errorf("Discover = %+v; want one that is not used, and the context's name", found)
	}
}

func TestDiscoverSaysWhyOfEachPlace(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	home, run := sockets(t), sockets(t)
	colima := filepath.Join(home, ".colima", "default")
	if err := os.MkdirAll(colima, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(strings.TrimPrefix(p.Host(), "unix://"), filepath.Join(colima, "docker.sock")); err != nil {
		t.Fatal(err)
	}
	needEngine(t)
	used := 0
	for _, f := range container.Discover(t.Context(), environment(map[string]string{"HOME": home, "XDG_RUNTIME_DIR": run}), "auto") {
		if f.Why == "" || f.Host == "" || (f.Err == nil) == (f.Version == "") {
			t.Errorf("found %+v; want a reason, and a version of those that answer", f)
		}
		if f.Used {
			used++
		}
		if f.Host == "unix://"+filepath.Join(colima, "docker.sock") && f.Err != nil {
			t.Errorf("colima's socket: %v", f.Err)
		}
	}
	if used != 1 {
		t.Errorf("%d engines are used; want 1", used)
	}
	for _, f := range container.Discover(t.Context(), environment(map[string]string{"DOCKER_HOST": p.Host()}), "podman") {
		if f.Used || !strings.Contains(f.Why, "is docker, and podman is wanted") {
			t.Errorf("found %+v; want that it is not Podman", f)
		}
	}
}
