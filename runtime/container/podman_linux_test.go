package container_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/hack/podman"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
)

// overPodman are the tests of what engines do and may do differently. What is
// locald's own is tested over Docker alone.
const overPodman = "^(TestSuite$|TestEverything|TestAPublishedPort|TestContainersOf|TestServicesThatStart|TestANamedVolume|TestAVolumeOf" +
	"|TestAPort|TestAName|TestALeftover|TestAProcess|TestMemory|TestAContainer|TestHealth|TestTheHostsNetwork|TestADeclaredPort" +
	"|TestAService|TestSweep|TestWhatAn|TestWhatADaemon|TestAnAbsence|TestAnExit|TestExec|TestOutputThat|TestEachWayAPull)"

// TestPodman is the suite, and more of this package's tests, over Podman.
func TestPodman(t *testing.T) {
	service := startPodman(t, podman.Start)
	again(t, service, nil, os.Args[0], "-test.run=TestALineArrives") // it measures time, and so is alone
	again(t, service, nil, os.Args[0], "-test.parallel=4", "-test.run", overPodman)
}

// TestPodmanRootless is the suite over the Podman of an ordinary user, on the
// host's network: for another one Podman needs /dev/net/tun, which is closed to
// users on some machines.
func TestPodmanRootless(t *testing.T) {
	service := startPodman(t, podman.StartRootless)
	itself := filepath.Join(t.TempDir(), "test")
	content, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.WriteFile(itself, content, 0o755), os.Chmod(filepath.Dir(itself), 0o755), os.Chmod(filepath.Dir(filepath.Dir(itself)), 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	as := podman.As(service.User())
	again(t, service, append(service.Environ(), networkVar+"=host"), as[0], append(as[1:], itself, "-test.run=^(TestSuite|TestANetworkThatRootless)")...)
}

// TestPodmanThatLacksWhatIsRecommended: Debian installs what containers of ours
// need only where recommendations are followed.
func TestPodmanThatLacksWhatIsRecommended(t *testing.T) {
	service := startPodman(t, podman.Start)
	for _, program := range []string{"/usr/lib/podman/aardvark-dns", "/usr/libexec/podman/catatonit"} {
		if _, err := os.Stat(program); err != nil {
			t.Skip(err)
		}
	}
	if err := service.Without(t.Context(), "/usr/lib/podman/aardvark-dns"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_HOST", service.Host()) // for what cleans up
	noted := make(chan string, 1)
	b := newBench(t, container.Options{Note: notes(noted)})
	b.up(t, b.probe(t, "hold"))
	select {
	case text := <-noted:
		if !strings.Contains(text, "apt-get install aardvark-dns") {
			t.Errorf("noted %q", text)
		}
	case <-time.After(limit):
		t.Error("nothing is said of names")
	}
	if err := service.Without(t.Context(), "/usr/libexec/podman/catatonit"); err != nil {
		t.Fatal(err)
	}
	_, err := b.Start(t.Context(), b.probe(t, "hold"))
	if fault := new(runtime.Fault); !errors.As(err, &fault) || fault.Hint != "sudo apt-get install catatonit" {
		t.Errorf("Start = %v; want a hint that installs catatonit", err)
	}
}

// again runs this test's binary over a service.
func again(t *testing.T, service *podman.Service, env []string, program string, args ...string) {
	t.Helper()
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = filepath.Dir(strings.TrimPrefix(service.Host(), "unix://"))
	cmd.Env = append(os.Environ(), engineVar+"=podman", "DOCKER_HOST="+service.Host())
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if text := "podman| " + strings.ReplaceAll(string(out), "\n", "\npodman| "); err != nil {
		t.Errorf("%v\n%s", err, text)
	} else {
		t.Log(text)
	}
	if strings.Contains(string(out), "no tests to run") {
		t.Error("no test ran")
	}
}

// startPodman runs a service until the test is over. It is not for tests that
// run over one already.
func startPodman(t *testing.T, start func(context.Context, ...string) (*podman.Service, error)) *podman.Service {
	t.Helper()
	if os.Getenv(engineVar) != "" {
		t.Skip("this is it already")
	}
	if reason := podman.Missing(); reason != "" {
		if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), "podman") {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	service, err := start(t.Context(), "probe", "healthy", "shell")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return service
}

// TestANetworkThatRootlessPodmanCannotMakeHasARemedy: it is what most images
// ask for first.
func TestANetworkThatRootlessPodmanCannotMakeHasARemedy(t *testing.T) {
	if os.Getenv(networkVar) != "host" {
		t.Skip("the engine makes networks")
	}
	b := newBench(t, container.Options{})
	i, err := b.Start(t.Context(), b.probe(t, "hold"))
	if err == nil {
		_ = i.Stop(t.Context(), 0)
		_ = i.Remove(t.Context())
		t.Skip("it makes networks here")
	}
	fault := new(runtime.Fault)
	if !errors.As(err, &fault) || fault.Code != "engine_unavailable" || !strings.Contains(err.Error(), "rootless podman cannot make the project's network") || fault.Hint == "" {
		t.Errorf("Start = %v, %+v; want that there is no network, and a remedy", err, fault)
	}
	t.Logf("%v\nhint: %s", err, fault.Hint)
	nothingLeft(t, b)
}
