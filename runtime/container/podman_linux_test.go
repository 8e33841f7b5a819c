package container_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/locald/locald/hack/podman"
)

// ours are the tests of what is the same whatever the engine is. They run over
// Docker, and with LOCALD_TEST_FULL over Podman too.
const ours = "|TestEntrypoint|TestStdoutAndStderr|TestALog|TestWhatCannotBeMounted|TestAStartThatIsCancelled" +
	"|TestACreateOfWhich|TestAnEngineThatHangs|TestACallMayTakeLong|TestAClosedRuntime|TestExecKeeps" +
	"|TestOutputGoesOn|TestAPullFor|TestAPullThat|TestStoredCredentials"

// TestPodman is the tests of this package over Podman.
func TestPodman(t *testing.T) {
	if os.Getenv(engineVar) != "" {
		t.Skip("this is it already")
	}
	service := startPodman(t)
	skip := "TestPodman|TestEachWayToHaveNoEngine|TestPermissionDenied|TestDiscover|TestTheChosenDockerContext"
	if os.Getenv("LOCALD_TEST_FULL") == "" {
		skip += ours
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.parallel=4", "-test.skip", "^("+skip+")")
	cmd.Env = append(os.Environ(), engineVar+"=podman", "DOCKER_HOST="+service.Host())
	out, err := cmd.CombinedOutput()
	if text := "podman| " + strings.ReplaceAll(string(out), "\n", "\npodman| "); err != nil {
		t.Errorf("%v\n%s", err, text)
	} else {
		t.Log(text)
	}
	if !strings.Contains(string(out), "--- PASS: TestSuite/") {
		t.Error("the suite did not run")
	}
}

// startPodman runs a service until the test is over.
func startPodman(t *testing.T) *podman.Service {
	t.Helper()
	if reason := podman.Missing(); reason != "" {
		if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), "podman") {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	service, err := podman.Start(t.Context())
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
