package containerd_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/locald/locald/hack/faultregistry"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/containerd"
	"github.com/locald/locald/runtime/runtimetest"
)

// login is a keychain with one entry for all registries.
type login authn.AuthConfig

func (l login) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig(l)), nil
}

// pulling is a registry with an image of one layer that nobody has pulled.
func pulling(t *testing.T, faults faultregistry.Faults) (name, layer string, registry *faultregistry.Registry) {
	t.Helper()
	registry, err := faultregistry.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registry.Close() })
	const size = 1 << 20
	image, err := random.Image(size, 1)
	if err != nil {
		t.Fatal(err)
	}
	name, err = registry.Push("team/app:1", image)
	if err != nil {
		t.Fatal(err)
	}
	registry.Misbehave(faults)
	return name, layerOf(t, image), registry
}

func layerOf(t *testing.T, image v1.Image) string {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.Hex[:12]
}

func TestPulls(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	nobody, tester := login{}, login{Username: "tester", Password: "s3cret"}
	for _, test := range []struct {
		what   string
		faults faultregistry.Faults
		as     login
		tag    string // instead of 1
		code   string // empty: it succeeds
		words  []string
		told   string // a step that is reported
	}{
		{what: "a good registry"},
		{what: "with a login", faults: faultregistry.Faults{User: "tester", Word: "s3cret"}, as: tester},
		{what: "without one", faults: faultregistry.Faults{User: "tester", Word: "s3cret"}, as: nobody, code: "image_pull", words: []string{"image IMAGE", "registry HOST", "needs a login", "docker login HOST"}},
		{what: "a tag that is not there", tag: "2", code: "image_pull", words: []string{"image IMAGE", "registry HOST", "does not exist there", "tags/list"}},
		{what: "a connection that breaks off", faults: faultregistry.Faults{CutAfter: 300_000, Cuts: 1}},
		{what: "one that always does", faults: faultregistry.Faults{CutAfter: 1000}, code: "image_pull", words: []string{"registry HOST", "layer LAYER", "it broke off after"}, told: "trying again"},
		{what: "a registry that is ill", faults: faultregistry.Faults{Status: 500}, code: "image_pull", words: []string{"registry HOST", "500"}, told: "trying again"},
		{what: "a layer that is not what it says", faults: faultregistry.Faults{Flip: 500_000}, code: "image_pull", words: []string{"image IMAGE", "registry HOST", "digest"}},
		{what: "a layer that stops coming", faults: faultregistry.Faults{Stall: 300_000}, code: "image_pull", words: []string{"layer LAYER", "nothing came for"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			name, layer, _ := pulling(t, test.faults)
			host, _, _ := strings.Cut(name, "/")
			if test.tag != "" {
				name = strings.TrimSuffix(name, "1") + test.tag
			}
			b := open(t, s, owner(t), func(o *containerd.Options) {
				o.Images.Keychain, o.Images.Tries, o.Images.Pause, o.Images.Stall = test.as, 3, time.Millisecond, time.Second/2
			})
			var mu sync.Mutex
			var most runtime.Progress
			told := ""
			err := b.Prepare(t.Context(), b.spec(t, "web", name, "x"), func(p runtime.Progress) {
				mu.Lock()
				defer mu.Unlock()
				told += p.Step + "\n"
				if p.Layer == layer && p.Current > most.Current {
					most = p
				}
			})
			if !strings.Contains(told, "pulling "+name) || !strings.Contains(told, test.told) {
				t.Errorf("told %q; want %q", told, test.told)
			}
			if test.code == "" {
				if err != nil || most.Current < 1<<20 || most.Current != most.Total {
					t.Errorf("Prepare = %v, told of %+v; want all of the layer", err, most)
				}
				return
			}
			fault, ok := errors.AsType[*runtime.Fault](err)
			if !ok || fault.Code != test.code {
				t.Fatalf("Prepare = %v; want %s", err, test.code)
			}
			for _, word := range test.words {
				word = strings.NewReplacer("IMAGE", name, "HOST", host, "LAYER", layer).Replace(word)
				if !strings.Contains(fault.Error()+" "+fault.Hint, word) {
					t.Errorf("Prepare = %v (hint: %s); want %q in it", err, fault.Hint, word)
				}
			}
		})
	}
}

func TestPullsThatAreNotWanted(t *testing.T) {
	t.Parallel()
	b := open(t, sharedServer(t), owner(t), nil)
	name, _, registry := pulling(t, faultregistry.Faults{})
	spec := b.spec(t, "web", name, "x")
	spec.Image.Pull = runtime.PullNever
	err := b.Prepare(t.Context(), spec, func(runtime.Progress) {})
	if fault, ok := errors.AsType[*runtime.Fault](err); !ok || fault.Code != "image_pull" || len(registry.Requests()) > 0 {
		t.Errorf("Prepare = %v, and %v asked for; want an image that is not there", err, registry.Requests())
	}
	spec.Image.Name = "no such image!"
	if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("Prepare = %v; want ErrInvalid", err)
	}
	spec.Image.Name, spec.Image.Pull = name, runtime.PullMissing
	for range 2 {
		registry.Misbehave(faultregistry.Faults{}) // forgets what was asked for
		if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
			t.Fatal(err)
		}
	}
	if asked := registry.Requests(); len(asked) > 0 {
		t.Errorf("asked again for an image that is there: %v", asked)
	}
}

func TestImages(t *testing.T) {
	s := sharedServer(t)
	runtimetest.Images(t, runtimetest.ImageSubject{
		Subject: runtimetest.Subject{
			Open:   func(t *testing.T, owner runtime.Owner) runtime.Runtime { return open(t, s, owner, nil) },
			Output: output,
		},
		Forget: func(t *testing.T, image string) { s.ctr(t, "images", "rm", "--sync", image) },
	})
}
