package builtin_test

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/locald/locald/runtime"
)

// limited starts a script in a container, or skips a test where this machine
// cannot limit it.
func limited(t *testing.T, script string, image runtime.Image) (exit runtime.Exit, text string) {
	t.Helper()
	r := open(t, runtime.Owner(t.Name()))
	image.Name = shellImage(t)
	log := filepath.Join(t.TempDir(), "log")
	spec := runtime.Spec{
		Project: runtime.Project{ID: "p", Name: "p", Dir: "/"}, Service: "web", Run: 1, Owner: runtime.Owner(t.Name()),
		Command: []string{"sh", "-c", script}, Log: log, Image: &image,
	}
	if err := r.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
		t.Fatal(err)
	}
	in, err := r.Start(t.Context(), spec)
	if err != nil {
		t.Skip(err)
	}
	exit, err = in.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	return exit, output(t, log)
}

// eats keeps what has no newline, without end.
const eats = "tail /dev/zero"

func TestMemory(t *testing.T) {
	most := runtime.Image{Memory: 64 << 20}
	if exit, _ := limited(t, "exec "+eats, most); exit.String() != "killed by SIGKILL (killed by the kernel for memory)" {
		t.Error(exit)
	}
	if exit, _ := limited(t, eats+"; exit 3", most); exit.String() != "exited with 3 (the kernel killed one of its processes for memory)" {
		t.Error(exit)
	}
	if exit, _ := limited(t, "kill -KILL $$", most); exit.String() != "killed by SIGKILL" {
		t.Error(exit)
	}
	const within = "head -c 100000000 /dev/zero | tail | wc -c"
	if exit, text := limited(t, within, runtime.Image{}); text != "100000000\n" {
		t.Errorf("without a limit: %v, %s", exit, text)
	}
}

func TestCPUs(t *testing.T) {
	const script = `loop() { while :; do :; done; }; cut -d" " -f1 /proc/uptime; loop & a=$!; loop & b=$!; sleep 2; kill -STOP $a $b
		cut -d" " -f14,15 /proc/$a/stat /proc/$b/stat; cut -d" " -f1 /proc/uptime; kill -KILL $a $b`
	_, text := limited(t, script, runtime.Image{CPUs: 0.2})
	var told []float64 // when it began, what the two have had, in hundredths of a second, when it ended
	for _, field := range strings.Fields(text) {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			t.Fatal(text)
		}
		told = append(told, n)
	}
	if len(told) != 6 {
		t.Fatal(text)
	}
	had, passed := (told[1]+told[2]+told[3]+told[4])/100, told[5]-told[0]
	if had == 0 || had > 0.35*passed {
		t.Errorf("in %.2f s they have had %.2f s of processors, and 0.2 of the time is allowed", passed, had)
	}
}

// A fork bomb takes what a container may have, and the machine goes on.
func TestForkBomb(t *testing.T) {
	exit, text := limited(t, `mkfifo /tmp/wait; i=0; while [ $i -lt 5000 ]; do (read line </tmp/wait) & i=$((i+1)); done; echo all; kill -KILL $$`, runtime.Image{})
	if slices.Contains(strings.Split(text, "\n"), "all") {
		t.Errorf("5000 processes were there: %v, %s", exit, text)
	}
}
