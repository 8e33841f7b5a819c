package runtimetest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/locald/locald/hack/faultregistry"
	"github.com/locald/locald/runtime"
)

// ImageSubject is a runtime that pulls images, and what the suite of images
// needs to drive it. Shell of the Subject is not used.
type ImageSubject struct {
	Subject

	// Forget removes an image from an engine that outlives the test. nil where
	// each Open has images of its own.
	Forget func(t *testing.T, image string)

	// Small returns a runtime that pulls and starts nothing, with room for two images with a shell and less than 40 MB, and what
	// gives it more. nil where that cannot be had.
	Small func(t *testing.T, owner runtime.Owner) (small runtime.Runtime, grow func())

	// Itself says that the runtime unpacks images, and no engine does: it knows
	// which layer is at fault, refuses what an engine takes as being inside of
	// the image, and images for other machines, which an engine may be able to
	// run.
	Itself bool
}

// Images runs what the contract says of images against the subject: real pulls
// from a real registry that misbehaves. Each failure names the image, the
// registry and, where one is at fault, the layer, has a code and something to
// type, leaves nothing half made, and does not stand in the way of the next try.
func Images(t *testing.T, subject ImageSubject) {
	t.Run("each way a pull fails is told apart, and the next try works", func(t *testing.T) { testBadImages(t, subject) })
	for _, test := range []struct {
		name string
		run  func(*testing.T, *imageBench)
	}{
		{"an image for other machines is told, or left to an engine that may run it", testForeign},
		{"what a layer says of other places reaches none of them", testContained},
		{"a tag that moved is seen when the registry is asked, and not before", testTagMoves},
		{"a registry that dies midway and comes back is waited for", testComesBack},
		{"an image that two projects want at once is brought once, and both see it", testTogether},
		{"a full disk is told, and what is there fits again", testFull},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, newImageBench(t, subject))
		})
	}
}

// imageBench is one test's runtime and registry.
type imageBench struct {
	bench
	*faultregistry.Registry
	images ImageSubject
	base   v1.Image // with a shell
}

func newImageBench(t *testing.T, subject ImageSubject) *imageBench {
	t.Helper()
	owner := runtime.Owner(fmt.Sprintf("images-%x", time.Now().UnixNano()))
	registry, err := faultregistry.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registry.Close() })
	if _, err := registry.PushTestImages(); err != nil {
		t.Skipf("no test images (hack/test-deps makes them): %v", err)
	}
	ref, err := name.ParseReference(registry.Addr()+"/locald-test/shell:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	base, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	return &imageBench{
		bench:  bench{Subject: subject.Subject, owner: owner, Runtime: subject.Open(t, owner)},
		images: subject, Registry: registry, base: base,
	}
}

// wants is a spec that prints what the image has in /etc/name.
func (b *imageBench) wants(t *testing.T, image string, pull runtime.Pull) runtime.Spec {
	t.Helper()
	b.Shell = func(*testing.T, string) runtime.Spec {
		return runtime.Spec{Command: []string{"cat", "/etc/name"}, Image: &runtime.Image{Name: image, Pull: pull}}
	}
	return b.shell(t, "")
}

func (b *imageBench) push(t *testing.T, tag string, image v1.Image) string {
	t.Helper()
	full, err := b.Push(tag, image)
	if err != nil {
		t.Fatal(err)
	}
	b.forgotten(t, full)
	return full
}

func (b *imageBench) forgotten(t *testing.T, image string) {
	if b.images.Forget != nil {
		t.Cleanup(func() { b.images.Forget(t, image) })
	}
}

func (b *imageBench) prepare(t *testing.T, image string, pull runtime.Pull) error {
	t.Helper()
	return b.Prepare(t.Context(), b.wants(t, image, pull), func(runtime.Progress) {})
}

// says runs the image and returns what is in its /etc/name.
func (b *imageBench) says(t *testing.T, image string, pull runtime.Pull) string {
	t.Helper()
	spec := b.wants(t, image, pull)
	instance := b.up(t, spec)
	if _, err := instance.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(b.Output(t, spec.Log))
}

type reports struct {
	mu  sync.Mutex
	all []runtime.Progress
}

func (r *reports) add(p runtime.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, p)
}

func (r *reports) list() []runtime.Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// badImage is one way in which a pull fails.
type badImage struct {
	name   string
	layer  func(t *testing.T) v1.Layer               // of the image; nil is a good one
	faults func(layer v1.Layer) faultregistry.Faults // nil is none
	as     string                                    // instead of what was pushed; %s is the registry
	code   string
	says   string
	blames bool // the layer is named
}

func badImages(t *testing.T, itself bool) []badImage {
	t.Helper()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	always := func(faults faultregistry.Faults) func(v1.Layer) faultregistry.Faults {
		return func(v1.Layer) faultregistry.Faults { return faults }
	}
	const pull, config = "image_pull", "config_invalid"
	return []badImage{
		{name: "no name", as: "Not A Name", code: config, says: "not an image's name"},
		{name: "upper case", as: "%s/App:1", code: config, says: "lowercase"},
		{name: "no such tag", as: "%s/app:none", code: pull, says: "does not exist"},
		{name: "no such repository", as: "%s/nothing:1", code: pull, says: "does not exist"},
		{name: "login", faults: always(faultregistry.Faults{User: "ana", Word: "secret"}), code: pull, says: "login"},
		{name: "forbidden", faults: always(faultregistry.Faults{Status: http.StatusForbidden}), code: pull, says: "login"},
		{name: "server error", faults: always(faultregistry.Faults{Status: http.StatusInternalServerError}), code: pull, says: "500"},
		{name: "nobody listens", as: nobody.Addr().String() + "/app:1", code: pull, says: "connection refused"},
		{name: "index without this platform", as: "%s/foreign:1", code: pull, says: "has nothing for linux/" + goruntime.GOARCH},
		{name: "corrupted", code: pull, blames: true, faults: func(l v1.Layer) faultregistry.Faults {
			return faultregistry.Faults{Only: digestText(l), Flip: 200_000}
		}},
		{name: "truncated", code: pull, blames: true, faults: func(l v1.Layer) faultregistry.Faults {
			return faultregistry.Faults{Only: digestText(l), Short: 100_000}
		}},
		{name: "another tar", code: pull, blames: itself, layer: func(t *testing.T) v1.Layer {
			return blob{layerOf(t, file("a", noise(100))), digestOf([]byte(noise(10)))}
		}},
		{name: "no tar", code: pull, blames: true, layer: func(*testing.T) v1.Layer {
			content := []byte("this is no archive: " + noise(1000))
			return blob{static.NewLayer(content, types.DockerLayer), digestOf(content)}
		}},
		{name: "half a tar", code: pull, blames: true, layer: func(t *testing.T) v1.Layer {
			content := archive(t, file("a", noise(4000)))[:2000]
			return blob{static.NewLayer(zipped(t, content), types.DockerLayer), digestOf(content)}
		}},
	}
}

func testBadImages(t *testing.T, subject ImageSubject) {
	t.Parallel()
	for _, test := range badImages(t, subject.Itself) {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, newImageBench(t, subject))
		})
	}
}

func (test badImage) run(t *testing.T, b *imageBench) {
	layer := layerOf(t, file("noise", noise(300_000)))
	good := b.with(t, layerOf(t, file("etc/name", "good")), layer)
	pushed := good
	if test.layer != nil {
		layer = test.layer(t)
		pushed = b.with(t, layer)
	}
	image := b.push(t, "app:1", pushed)
	b.pushForeign(t)
	if test.as != "" {
		image = strings.ReplaceAll(test.as, "%s", b.Addr())
	}
	if test.faults != nil {
		b.Misbehave(test.faults(layer))
	}
	err := b.prepare(t, image, runtime.PullMissing)
	words := []string{"image " + image, test.says}
	if test.code != "config_invalid" {
		words = append(words, strings.Split(image, "/")[0])
	}
	if test.blames {
		words = append(words, "layer "+shortOf(layer))
	}
	told(t, err, test.code, words...)
	if err := b.prepare(t, image, runtime.PullNever); err == nil {
		t.Error("what could not be pulled counts as being there")
	}
	if _, err := b.Start(t.Context(), b.wants(t, image, runtime.PullNever)); err == nil {
		t.Error("what could not be pulled was started")
	}
	b.Misbehave(faultregistry.Faults{})
	if said := b.says(t, b.push(t, "app:1", good), runtime.PullMissing); said != "good" {
		t.Errorf("after the next try it says %q", said)
	}
}

// told checks what the error of a pull says.
func told(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	fault := new(runtime.Fault)
	if !errors.As(err, &fault) {
		t.Fatalf("Prepare = %v; want a fault with %s", err, code)
	}
	if fault.Code != code || fault.Hint == "" {
		t.Errorf("Prepare = %v (code %s, hint %q); want %s and a hint", err, fault.Code, fault.Hint, code)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("Prepare = %v; want %q in it", err, word)
		}
	}
	t.Logf("%v\nhint: %s", err, fault.Hint) // for who looks at what people read
}

// with is the base with more layers.
func (b *imageBench) with(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	image, err := mutate.AppendLayers(b.base, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// pushForeign pushes an index that has nothing for this machine.
func (b *imageBench) pushForeign(t *testing.T) {
	t.Helper()
	image, err := b.PushIndex("foreign:1", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: b.foreign(t), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	b.forgotten(t, image)
}

// foreign is an image for other machines.
func (b *imageBench) foreign(t *testing.T) v1.Image {
	t.Helper()
	image := b.with(t, layerOf(t, file("noise", noise(100))))
	config, err := image.ConfigFile()
	if err == nil {
		config = config.DeepCopy()
		config.Architecture = "s390x"
		image, err = mutate.ConfigFile(image, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func testForeign(t *testing.T, b *imageBench) {
	image := b.push(t, "app:1", b.foreign(t))
	err := b.prepare(t, image, runtime.PullMissing)
	if !b.images.Itself {
		if err != nil {
			t.Errorf("Prepare = %v; this engine may be able to run it", err)
		}
		return
	}
	told(t, err, "image_pull", "image "+image, b.Addr(), "it is for linux/s390x and this machine is linux/"+goruntime.GOARCH)
}

func testContained(t *testing.T, b *imageBench) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, entries := range [][]entry{
		{file("../../evil", "x")},
		{link("up", "../.."), file("up/evil", "x")},
		{link("l", outside), file("l/evil", "x")},
		{link("l", outside), file("l/secret", "overwritten")},
		{link("l", outside), file("l/.wh.secret", "")},
		{hard("evil", secret), file("evil", "overwritten")},
		{link("l", outside), hard("evil", "l/secret")},
		{link("l", outside+"/secret"), file("l", "y")},
	} {
		layer := layerOf(t, append(entries, file("noise", noise(100)))...)
		image := b.push(t, fmt.Sprintf("app:%d", i), b.with(t, layer))
		err := b.prepare(t, image, runtime.PullMissing)
		switch {
		case err != nil:
			told(t, err, "image_pull", "image "+image, b.Addr(), "layer "+shortOf(layer))
		case b.images.Itself && i < 2:
			t.Errorf("%d: what climbs above the root is taken", i)
		}
		found, err := os.ReadDir(outside)
		if err != nil || len(found) != 1 {
			t.Errorf("%d: outside are %v, %v; want the secret", i, found, err)
		}
		content, err := os.ReadFile(secret)
		info, failed := os.Stat(secret)
		if err := errors.Join(err, failed); err != nil || string(content) != "s" || info.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Errorf("%d: the secret is %q, %+v, %v", i, content, info, err)
		}
	}
}

func testTagMoves(t *testing.T, b *imageBench) {
	version := func(text string) v1.Image {
		return b.with(t, layerOf(t, file("etc/name", text), file("noise", noise(100))))
	}
	image := b.push(t, "app:1", version("first"))
	if said := b.says(t, image, runtime.PullMissing); said != "first" {
		t.Errorf("it says %q", said)
	}
	b.push(t, "app:1", version("second"))
	if said := b.says(t, image, runtime.PullMissing); said != "first" {
		t.Errorf("without asking the registry it says %q", said)
	}
	if said := b.says(t, image, runtime.PullAlways); said != "second" {
		t.Errorf("after asking the registry it says %q", said)
	}
	if said := b.says(t, image, runtime.PullNever); said != "second" {
		t.Errorf("afterwards it says %q", said)
	}
}

func testComesBack(t *testing.T, b *imageBench) {
	image := b.push(t, "app:1", b.with(t, layerOf(t, file("etc/name", "good")), layerOf(t, file("noise", noise(3_000_000)))))
	b.Misbehave(faultregistry.Faults{Rate: 2_000_000})
	var down, up sync.Once
	var seen reports
	err := b.Prepare(t.Context(), b.wants(t, image, runtime.PullMissing), func(p runtime.Progress) {
		seen.add(p)
		switch {
		case p.Layer != "" && p.Phase == runtime.Downloading && p.Current > 500_000:
			down.Do(b.Down)
		case p.Layer == "" && p.Phase == runtime.Retrying:
			up.Do(func() {
				if err := b.Up(); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if err != nil {
		t.Fatalf("Prepare = %v; reported %v", err, seen.list())
	}
	if !slices.ContainsFunc(seen.list(), func(p runtime.Progress) bool {
		return p.Layer == "" && p.Phase == runtime.Retrying && strings.HasPrefix(p.Step, "pulling "+image+": ") && strings.HasSuffix(p.Step, "; trying again")
	}) {
		t.Errorf("nothing said why it was tried again: %v", seen.list())
	}
	if said := b.says(t, image, runtime.PullNever); said != "good" {
		t.Errorf("it says %q", said)
	}
}

func testTogether(t *testing.T, b *imageBench) {
	large := layerOf(t, file("noise", noise(2_000_000)))
	image := b.push(t, "app:1", b.with(t, layerOf(t, file("etc/name", "good")), large))
	b.Misbehave(faultregistry.Faults{Rate: 2_000_000})
	specs := []runtime.Spec{b.wants(t, image, runtime.PullMissing), b.wants(t, image, runtime.PullMissing)}
	specs[1].Project.ID += "-2"
	begun := make(chan struct{})
	var once sync.Once
	var first, second reports
	var pulling sync.WaitGroup
	pulling.Go(func() {
		defer once.Do(func() { close(begun) })
		err := b.Prepare(t.Context(), specs[0], func(p runtime.Progress) {
			first.add(p)
			if p.Layer != "" && p.Phase == runtime.Downloading {
				once.Do(func() { close(begun) })
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	if err := b.Prepare(t.Context(), specs[1], second.add); err != nil {
		t.Error(err)
	}
	pulling.Wait()
	for i, seen := range [][]runtime.Progress{first.list(), second.list()} {
		if !slices.ContainsFunc(seen, func(p runtime.Progress) bool { return p.Phase == runtime.Downloading && p.Current > 0 }) {
			t.Errorf("project %d saw nothing of the download: %v", i+1, seen)
		}
	}
	asked := 0
	for _, request := range b.Requests() {
		if request.Method == http.MethodGet && strings.Contains(request.Path, digestText(large)) {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("the layer was asked for %d times; want once", asked)
	}
	if said := b.says(t, image, runtime.PullNever); said != "good" {
		t.Errorf("it says %q", said)
	}
}

func testFull(t *testing.T, b *imageBench) {
	if b.images.Small == nil {
		t.Skip("there is no engine with little room")
	}
	small, grow := b.images.Small(t, b.owner)
	b.Runtime = small
	first := b.push(t, "app:1", b.with(t, layerOf(t, file("etc/name", "good"))))
	if err := b.prepare(t, first, runtime.PullMissing); err != nil {
		t.Fatal(err)
	}
	for tag, content := range map[string]string{"noise:1": noise(40_000_000), "zeroes:1": strings.Repeat("\x00", 40_000_000)} {
		layer := layerOf(t, file("content", content))
		image := b.push(t, tag, b.with(t, layer))
		err := b.prepare(t, image, runtime.PullMissing)
		told(t, err, "disk_full", "image "+image)
		if unpacked := tag == "zeroes:1"; unpacked || b.images.Itself {
			told(t, err, "disk_full", "layer "+shortOf(layer))
		}
	}
	fits := b.push(t, "app:2", b.with(t, layerOf(t, file("etc/name", "good"), file("noise", noise(5_000_000)))))
	if err := b.prepare(t, fits, runtime.PullMissing); err != nil {
		t.Errorf("what fits: %v", err)
	}
	grow()
	if err := b.prepare(t, b.Addr()+"/zeroes:1", runtime.PullMissing); err != nil {
		t.Errorf("with room: %v", err)
	}
}
