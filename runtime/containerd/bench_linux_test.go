package containerd_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
)

// TestMeasure prints how long a container takes from Start to its first line in
// the log, and to stop. It measures nothing in short tests.
func TestMeasure(t *testing.T) {
	b := open(t, sharedServer(t), owner(t), nil)
	var begun, first, ended []time.Duration
	for run := range 11 {
		spec := b.shell(t, "echo up; exec sleep 60")
		spec.Run = run + 1
		if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		in, err := b.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		begun = append(begun, time.Since(at))
		for !strings.Contains(output(t, spec.Log), "up") {
			time.Sleep(time.Millisecond)
		}
		first = append(first, time.Since(at))
		at = time.Now()
		if err := in.Stop(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		ended = append(ended, time.Since(at))
		if err := in.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, all := range map[string][]time.Duration{"Start": begun, "first line": first, "Stop": ended} {
		slices.Sort(all)
		t.Logf("%s: median %v, %v to %v", name, all[len(all)/2], all[0], all[len(all)-1])
	}
}
