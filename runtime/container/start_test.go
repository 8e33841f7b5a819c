package container_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
)

func TestEverythingOfASpecReachesTheContainer(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "seed"), []byte("planted"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec := b.probe(t, "env=GREETING", "id", "cat=/seed/seed", "write=/scratch/x:fits", "cat=/scratch/x", "hold")
	spec.Env = []string{"GREETING=good morning, $HOME"}
	spec.StopSignal, spec.Grace = "SIGUSR1", 1500*time.Millisecond
	spec.Image.User, spec.Image.Workdir = "1234:5678", "/tmp"
	spec.Image.Mounts = []runtime.Mount{{Source: dir, Target: "/seed", ReadOnly: true}}
	spec.Image.Tmpfs = []string{"/scratch:mode=1777"}
	spec.Image.ReadOnly, spec.Image.Memory, spec.Image.CPUs = true, 64<<20, 0.5
	spec.Image.Labels = map[string]string{"team": "blue"}
	id := b.up(t, spec).Info().ContainerID
	saying(t, spec, "fits")

	out := read(t, spec.Log, "stdout")
	for _, want := range []string{"GREETING=good morning, $HOME\n", "uid 1234 gid 5678", "dir /tmp", "planted"} {
		if !strings.Contains(out, want) {
			t.Errorf("output = %q; want %q in it", out, want)
		}
	}
	var found []struct {
		Name   string
		Config struct {
			StopSignal  string
			StopTimeout int
			Labels      map[string]string
		}
		HostConfig struct {
			Memory, NanoCpus int64
			ReadonlyRootfs   bool
			Init             bool
			AutoRemove       bool
			RestartPolicy    struct{ Name string }
		}
	}
	if err := json.Unmarshal([]byte(docker(t, "inspect", id)), &found); err != nil {
		t.Fatal(err)
	}
	c := found[0]
	if want := fmt.Sprintf("/locald-%s-web-1", b.project.ID); c.Name != want {
		t.Errorf("name = %q; want %q", c.Name, want)
	}
	if s := c.Config.StopSignal; s != "SIGUSR1" && s != "10" || c.Config.StopTimeout != 2 {
		t.Errorf("stop = %q, %d s; want SIGUSR1 and the grace in whole seconds, 2", c.Config.StopSignal, c.Config.StopTimeout)
	}
	h := c.HostConfig
	if h.Memory != 64<<20 || h.NanoCpus != 5e8 || !h.ReadonlyRootfs || !h.Init || h.AutoRemove || h.RestartPolicy.Name != "no" {
		t.Errorf("host configuration = %+v", h)
	}
	for key, want := range map[string]string{
		"dev.locald.instance": string(b.owner), "dev.locald.project": "shop", "dev.locald.dir": b.project.Dir,
		"dev.locald.service": "web", "dev.locald.run": string(spec.ID()), "team": "blue",
	} {
		if got := c.Config.Labels[key]; got != want {
			t.Errorf("label %s = %q; want %q", key, got, want)
		}
	}
}

func TestEntrypointReplacesTheImages(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	spec := b.probe(t, "$0 is $1", "given")
	spec.Image.Name = shellImage
	spec.Image.Entrypoint = []string{"sh", "-c", `echo "$0 $1"`}
	if out, _ := b.done(t, spec); out != "$0 is $1 given\n" {
		t.Errorf("output = %q", out)
	}
}

func TestStdoutAndStderrAreKeptApartAndWhole(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	const count = 20000
	spec := b.probe(t, fmt.Sprintf("lines=%d", count), "raw=tail", "exit=3")
	if _, exit := b.done(t, spec); exit.Code != 3 {
		t.Errorf("Wait = %+v; want 3", exit)
	}
	for stream, word := range map[string]string{"stdout": "out", "stderr": "err"} {
		var want strings.Builder
		for i := range count {
			fmt.Fprintln(&want, word, i)
		}
		if stream == "stdout" {
			want.WriteString("tail")
		}
		if got := read(t, spec.Log, stream); got != want.String() {
			t.Errorf("%s has %d bytes; want %d, in order", stream, len(got), want.Len())
		}
	}
}

func TestALineArrivesWithinFiftyMilliseconds(t *testing.T) {
	t.Parallel()
	type arrival struct {
		line string
		at   time.Time
	}
	arrivals := make(chan arrival, 100)
	var reading sync.WaitGroup
	b := newBench(t, container.Options{Streams: func(string, int) (*os.File, *os.File, error) {
		r, stdout, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		stderr, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		reading.Go(func() {
			defer r.Close()
			for lines := bufio.NewScanner(r); lines.Scan(); {
				arrivals <- arrival{lines.Text(), time.Now()}
			}
		})
		return stdout, stderr, err
	}})
	wait(t, b.up(t, b.probe(t, "stamps=31,10ms")))
	reading.Wait()
	close(arrivals)
	var late []time.Duration
	for a := range arrivals {
		written, err := strconv.ParseInt(strings.TrimPrefix(a.line, "stamp "), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		late = append(late, a.at.Sub(time.Unix(0, written)))
	}
	slices.Sort(late)
	if len(late) != 31 || late[15] > 50*time.Millisecond {
		t.Errorf("delays = %v; want 31 of them, and 50ms in the middle at most", late)
	}
}

func TestALogThatTakesNoMoreHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{Streams: func(string, int) (*os.File, *os.File, error) {
		r, stdout, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		stderr, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		return stdout, stderr, errors.Join(err, r.Close())
	}})
	if exit := wait(t, b.up(t, b.probe(t, "lines=50000", "exit=3"))); exit.Code != 3 {
		t.Errorf("Wait = %+v; want 3", exit)
	}
}

func TestAPublishedPortIsOnTheLoopbackOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	port := freePort(t)
	spec := b.probe(t, "listen=8080", "out=up", "hold")
	spec.Image.Ports = []runtime.Port{{Host: port, Container: 8080}}
	instance := b.up(t, spec)
	until(t, "the port answers", func() bool { return ask(fmt.Sprintf("127.0.0.1:%d", port)) == "hello 8080" })
	if got, want := docker(t, "port", instance.Info().ContainerID), fmt.Sprintf("8080/tcp -> 127.0.0.1:%d", port); got != want {
		t.Errorf("published %q; want %q", got, want)
	}
}

func TestContainersOfAProjectReachEachOtherByServiceName(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	db := b.probe(t, "listen=5432", "out=up", "hold")
	db.Service = "db"
	b.up(t, db)
	saying(t, db, "up")
	if out, _ := b.done(t, b.probe(t, "connect=db:5432")); out != "connected db:5432: hello 5432\n" {
		t.Errorf("output = %q", out)
	}
}

func TestServicesThatStartTogetherShareOneNetworkUntilTheLastHasGone(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	var starting sync.WaitGroup
	instances := make([]runtime.Instance, 3)
	for n := range instances {
		spec := b.probe(t, "hold")
		spec.Service = fmt.Sprint("s", n)
		starting.Go(func() {
			var err error
			if instances[n], err = b.Start(t.Context(), spec); err != nil {
				t.Errorf("Start: %v", err)
			}
		})
	}
	starting.Wait()
	networks := func() string {
		return docker(t, "network", "ls", "--filter", "label=dev.locald.instance="+string(b.owner), "--format", "{{.Name}}")
	}
	for _, instance := range instances {
		if t.Failed() {
			return
		}
		if got, want := networks(), "locald-"+b.project.ID; got != want {
			t.Errorf("networks = %q; want %q", got, want)
		}
		if err := errors.Join(instance.Stop(t.Context(), 0), instance.Remove(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if got := networks(); got != "" {
		t.Errorf("networks = %q; want none", got)
	}
}

func TestANamedVolumeOutlivesItsContainersUntilItIsRemoved(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	for n, want := range []string{"kept\n", "kept\n"} {
		arguments := []string{"write=/data/x:kept", "cat=/data/x"}[n:]
		spec := b.probe(t, arguments...)
		spec.Image.Mounts = []runtime.Mount{{Source: "cache", Target: "/data"}}
		instance := b.up(t, spec)
		wait(t, instance)
		if got := read(t, spec.Log, "stdout"); got != want {
			t.Errorf("run %d wrote %q; want %q", spec.Run, got, want)
		}
		if err := instance.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	has := func() bool {
		t.Helper()
		has, err := b.HasVolume(t.Context(), b.project.ID, "cache")
		if err != nil {
			t.Fatal(err)
		}
		return has
	}
	if !has() {
		t.Error("HasVolume = false; want true")
	}
	if err := b.RemoveVolumes(t.Context(), b.project.ID, "web", "other"); err != nil || !has() {
		t.Errorf("removing another volume: %v, still there: %v", err, has())
	}
	for range 2 {
		if err := b.RemoveVolumes(t.Context(), b.project.ID, "web"); err != nil || has() {
			t.Errorf("removing the service's volumes: %v, still there: %v", err, has())
		}
	}
}

func TestWhatCannotBeMountedIsNamed(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	link := filepath.Join(t.TempDir(), "innocent")
	if err := os.Symlink("/var/run/docker.sock", link); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"/no/such/place":       "/no/such/place: there is no such file or directory",
		"/var/run/docker.sock": "the engine's socket",
		link:                   "the engine's socket",
		"/run":                 "the engine's socket",
	} {
		spec := b.probe(t, "hold")
		spec.Image.Mounts = []runtime.Mount{{Source: source, Target: "/x"}}
		_, err := b.Start(t.Context(), spec)
		if !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), source) {
			t.Errorf("mounting %s: %v; want ErrInvalid with %q", source, err, want)
		}
	}
	nothingLeft(t, b)
}

func TestAVolumeOfSomebodyElseIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	name := "locald-" + b.project.ID + "-cache"
	docker(t, "volume", "create", name)
	t.Cleanup(func() { docker(t, "volume", "rm", name) })
	spec := b.probe(t, "hold")
	spec.Image.Mounts = []runtime.Mount{{Source: "cache", Target: "/data"}}
	if _, err := b.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("Start = %v; want the volume's name", err)
	}
	if err := b.RemoveVolumes(t.Context(), b.project.ID, "web", "cache"); err != nil {
		t.Error(err)
	}
	if got := docker(t, "volume", "ls", "-q", "--filter", "name="+name); got != name {
		t.Errorf("volumes = %q; want %q still there", got, name)
	}
	nothingLeft(t, b)
}

func TestAPortThatIsTakenLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	holder, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	_, port, _ := net.SplitHostPort(holder.Addr().String())
	number, _ := strconv.Atoi(port)
	spec := b.probe(t, "hold")
	spec.Image.Ports = []runtime.Port{{Host: number, Container: 80}}
	_, err = b.Start(t.Context(), spec)
	if fault := new(runtime.Fault); !errors.As(err, &fault) || fault.Code != "port_taken" || !strings.Contains(err.Error(), port) {
		t.Errorf("Start = %v; want port_taken with the number %s", err, port)
	}
	nothingLeft(t, b)
}

func TestAPortIsFreeAgainForTheNextRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	port := freePort(t)
	for range 3 {
		spec := b.probe(t, "exit=0")
		spec.Image.Ports = []runtime.Port{{Host: port, Container: 80}}
		wait(t, b.up(t, spec)) // not removed: the next start is immediate
	}
}

func TestANameThatSomebodyElseHasIsLeftToThem(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P9 F48")
	b := newBench(t, container.Options{})
	spec := b.probe(t, "hold")
	name := fmt.Sprintf("locald-%s-web-%d", b.project.ID, spec.Run)
	docker(t, "create", "--name", name, probeImage, "hold")
	t.Cleanup(func() { docker(t, "rm", "-f", name) })
	_, err := b.Start(t.Context(), spec)
	if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "not made by locald") {
		t.Errorf("Start = %v; want the container's name", err)
	}
	if got := docker(t, "inspect", "-f", "{{.State.Status}}", name); got != "created" {
		t.Errorf("the other container is %s; want it untouched", got)
	}
	nothingLeft(t, b)
}

func TestALeftoverWithTheNameIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	spec := b.probe(t, "exit=0")
	name := fmt.Sprintf("locald-%s-web-%d", b.project.ID, spec.Run)
	docker(t, "create", "--name", name, "--label", "dev.locald.instance="+string(b.owner), probeImage, "hold")
	if _, exit := b.done(t, spec); exit.Code != 0 {
		t.Errorf("Wait = %+v; want 0", exit)
	}
}

func TestAStartThatIsCancelledOnTheWayLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.Env})
	for _, step := range []string{"/containers/create", "/start"} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p.On("POST", step, 1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			cancel()
			forward.ServeHTTP(w, r)
		})
		if _, err := b.Start(ctx, b.probe(t, "hold")); !errors.Is(err, context.Canceled) {
			t.Errorf("Start cancelled at %s = %v; want context.Canceled", step, err)
		}
		nothingLeft(t, b)
	}
}

func TestAProcessThatIgnoresTheSignalOrLeavesZombies(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P6 F49")
	b := newBench(t, container.Options{})
	spec := b.probe(t, "trap=ignore", "orphan=exit=0", "orphan=exit=0", "sleep=200ms", "reap", "hold")
	instance := b.up(t, spec)
	saying(t, spec, "zombies")
	// The probe's own two children are its own to reap; the orphans are not.
	if got := read(t, spec.Log, "stdout"); got != "zombies 2\n" {
		t.Errorf("output = %q; want only the probe's own 2", got)
	}
	begun := time.Now()
	if err := instance.Stop(t.Context(), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("Stop took %v", took)
	}
	if exit := wait(t, instance); exit.Signal != "SIGKILL" || exit.Reason != "" {
		t.Errorf("Wait = %+v; want SIGKILL, and nothing else to say of it", exit)
	}
}

func TestMemoryThatRunsOutIsTheReason(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	spec := b.probe(t, "eat=500", "hold")
	spec.Image.Memory = 24 << 20
	_, exit := b.done(t, spec)
	if exit.Code != 137 {
		t.Errorf("Wait = %+v; want 137", exit)
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil && engineName() == "podman" {
		t.Skip("Podman does not tell why it was, where control groups are of the first version")
	}
	if exit.Reason != "killed by the kernel for memory" {
		t.Errorf("Wait = %+v; want that it was for memory", exit)
	}
}

func TestAContainerThatSomebodyElseRemoves(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	instance := b.up(t, b.probe(t, "hold"))
	docker(t, "rm", "-f", instance.Info().ContainerID)
	if exit := wait(t, instance); exit.Reason != "removed by someone else" {
		t.Errorf("Wait = %+v; want that it was removed", exit)
	}
}

func TestAContainerThatSomebodyElsePausesIsStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	instance := b.up(t, b.probe(t, "hold"))
	found := make(chan bool, 10)
	over := make(chan error, 1)
	go func() {
		over <- instance.(runtime.Pauser).Paused(t.Context(), func(paused bool) { found <- paused })
	}()
	for _, now := range []string{"", "pause", "unpause", "pause"} {
		if now != "" {
			docker(t, now, instance.Info().ContainerID)
		}
		select {
		case paused := <-found:
			if paused != (now == "pause") {
				t.Fatalf("paused = %v after %q", paused, now)
			}
		case <-time.After(limit):
			t.Fatalf("nothing is said after %q", now)
		}
	}
	if refs, err := b.List(t.Context(), b.owner); err != nil || len(refs) != 1 {
		t.Errorf("List = %v, %v; want the paused one", refs, err)
	}
	if err := instance.Stop(t.Context(), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if exit := wait(t, instance); !exit.Known {
		t.Errorf("Wait = %+v; want a known end", exit)
	}
	if err := <-over; err != nil {
		t.Errorf("Paused = %v after the end; want nil", err)
	}
}

func TestHealthIsWhatTheImagesCheckFinds(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	spec := b.probe(t, "sleep=500ms", "write=/tmp/healthy:", "hold")
	spec.Image.Name = healthyImage
	instance := b.up(t, spec)
	if !instance.Info().Healthcheck {
		t.Error("Info.Healthcheck = false")
	}
	found := make(chan runtime.Health, 10)
	over := make(chan error, 1)
	go func() {
		over <- instance.(runtime.HealthReporter).Health(t.Context(), func(h runtime.Health) { found <- h })
	}()
	for _, want := range []runtime.Health{runtime.HealthStarting, runtime.Healthy} {
		select {
		case got := <-found:
			if got == runtime.Unhealthy { // a loaded machine: it did not start in time
				want = got
			}
			if got != want {
				t.Fatalf("health = %q; want %q", got, want)
			}
		case <-time.After(limit):
			t.Fatalf("health never was %q", want)
		}
	}
	if err := instance.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-over; err != nil {
		t.Errorf("Health = %v after the end; want nil", err)
	}
}

func TestTheHostsNetwork(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	spec := b.probe(t, fmt.Sprintf("connect=127.0.0.1:%d", serve(t, "127.0.0.1:0")))
	spec.Image.Host = true
	if out, _ := b.done(t, spec); !strings.Contains(out, "hello from the host") {
		t.Errorf("output = %q", out)
	}
}

func TestADeclaredPortOfTheLoopbackIsReachedByTheProjectOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	port := serve(t, "127.0.0.1:0")
	address := fmt.Sprintf("host.docker.internal:%d", port)
	spec := b.probe(t, "lookup=host.docker.internal", "connect="+address, "out=asked", "hold")
	spec.Image.Reach = []int{port}
	b.up(t, spec)
	saying(t, spec, "asked")
	out := read(t, spec.Log, "stdout")
	if !strings.Contains(out, "connected "+address+": hello from the host") {
		t.Errorf("output = %q; want the host's answer", out)
	}
	gateway := strings.Fields(out)[2]

	other := newBench(t, container.Options{})
	stranger := other.probe(t, fmt.Sprintf("connect=%s:%d", gateway, port))
	if out, _ := other.done(t, stranger); !strings.HasPrefix(out, "no connection") {
		t.Errorf("a container of another project: %q; want no connection", out)
	}
	undeclared := serve(t, "127.0.0.1:0")
	if out, _ := b.done(t, b.probe(t, fmt.Sprintf("connect=%s:%d", gateway, undeclared))); !strings.HasPrefix(out, "no connection") {
		t.Errorf("a port that is not declared: %q; want no connection", out)
	}
}

func TestAServiceThatComesLaterIsReachedAndNotKeptFromItsPort(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	for _, host := range []string{"127.0.0.1", "0.0.0.0"} {
		port := freePort(t)
		spec := b.probe(t, "out=up", "hold")
		spec.Image.Reach = []int{port}
		instance := b.up(t, spec)
		saying(t, spec, "up")
		serve(t, fmt.Sprintf("%s:%d", host, port)) // fails the test if the forwarder has taken the port
		until(t, "the service on "+host+" is reached", func() bool {
			_, out, err := instance.(runtime.Execer).Exec(t.Context(), []string{"/probe", fmt.Sprintf("connect=host.docker.internal:%d", port)})
			return err == nil && strings.Contains(string(out), "hello from the host")
		})
	}
}

func TestSweepRemovesWhatIsOursAndUnused(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	mine := "dev.locald.instance=" + string(b.owner)
	docker(t, "create", "--label", mine, probeImage, "hold")
	docker(t, "network", "create", "--label", mine, "locald-"+b.project.ID+"-old")
	foreign := docker(t, "create", "--label", "dev.locald.instance="+string(b.owner)+"-other", probeImage, "hold")
	t.Cleanup(func() { docker(t, "rm", "-f", foreign) })
	live := b.up(t, b.probe(t, "hold"))
	if err := b.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := docker(t, "ps", "-aq", "--no-trunc", "--filter", "label="+mine); got != live.Info().ContainerID {
		t.Errorf("containers = %q; want only the live one", got)
	}
	if got := docker(t, "network", "ls", "--filter", "label="+mine, "--format", "{{.Name}}"); got != "locald-"+b.project.ID {
		t.Errorf("networks = %q; want only the one in use", got)
	}
	if got := docker(t, "inspect", "-f", "{{.State.Status}}", foreign); got != "created" {
		t.Errorf("the other instance's container is %s", got)
	}
}

func TestWhatAnEarlierDaemonLeftIsFoundAndEnded(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P9 F46")
	b := newBench(t, container.Options{})
	if _, err := b.Start(t.Context(), b.probe(t, "hold")); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	next := open(t, container.Options{Owner: b.owner})
	refs, err := next.List(t.Context(), b.owner)
	if err != nil || len(refs) != 1 {
		t.Fatalf("List = %v, %v; want one", refs, err)
	}
	instance, err := next.Attach(t.Context(), refs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(instance.Stop(t.Context(), 100*time.Millisecond), instance.Remove(t.Context())); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, b)
}

// nothingLeft checks that the owner has no container and no network.
func nothingLeft(t *testing.T, b *bench) {
	t.Helper()
	for _, kind := range []string{"container", "network"} {
		args := []string{kind, "ls", "-q", "--filter", "label=dev.locald.instance=" + string(b.owner)}
		if kind == "container" {
			args = append(args, "-a")
		}
		if left := docker(t, args...); left != "" {
			t.Errorf("a %s is left: %s", kind, left)
		}
	}
}

// serve answers "hello from the host" at address and returns the port.
func serve(t *testing.T, address string) int {
	t.Helper()
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello from the host\n")
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return listener.Addr().(*net.TCPAddr).Port
}

// ask returns the line that an address answers with.
func ask(address string) string {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}

// freePort is one that nobody has at the moment.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
