package container_test

import (
	"encoding/base64"
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
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/locald/locald/hack/faultregistry"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
)

// newImage has two layers that nobody has yet.
func newImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(2<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", goruntime.GOARCH
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// newRegistry is a registry with a new image in it, which is removed from the
// engine after the test.
func newRegistry(t *testing.T) (r *faultregistry.Registry, image string) {
	t.Helper()
	r, err := faultregistry.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	image, err = r.Push("app:1", newImage(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if docker(t, "images", "-q", image) != "" {
			docker(t, "rmi", image)
		}
	})
	return r, image
}

// steps records progress.
type steps struct {
	mu  sync.Mutex
	all []runtime.Progress
}

func (s *steps) report(p runtime.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, p)
}

func (s *steps) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.all)
}

func pulling(b *bench, t *testing.T, image string, policy runtime.Pull) runtime.Spec {
	spec := b.probe(t)
	spec.Image.Name, spec.Image.Pull = image, policy
	return spec
}

func TestAMissingImageIsPulledWithProgressAndOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, container.Options{})
	registry, image := newRegistry(t)
	registry.Misbehave(faultregistry.Faults{Rate: 2 << 20})
	var seen steps
	begun := time.Now()
	if err := b.Prepare(t.Context(), pulling(b, t, image, runtime.PullMissing), seen.report); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	var last, most int64
	reports, phases := map[string]int{}, map[string][]runtime.Phase{}
	for _, p := range seen.all {
		reports[p.Layer]++
		if n := len(phases[p.Layer]); p.Layer != "" && (n == 0 || phases[p.Layer][n-1] != p.Phase) {
			phases[p.Layer] = append(phases[p.Layer], p.Phase)
		}
		if p.Layer == "" && strings.HasPrefix(p.Step, "pulling "+image) {
			if p.Current < last {
				t.Errorf("progress went back from %d: %v", last, p)
			}
			last, most = p.Current, max(most, p.Total)
		}
	}
	if most < 4<<20 {
		t.Errorf("the most bytes announced were %d; want both layers, more than %d: %v", most, 4<<20, seen.all)
	}
	if len(reports) != 3 {
		t.Errorf("reports of %v; want the whole and two layers", reports)
	}
	for layer, n := range reports {
		if allowed := int(took/(100*time.Millisecond)) + 6; n < 4 || n > allowed {
			t.Errorf("%d reports of %q in %v; want some, and %d at most", n, layer, took, allowed)
		}
	}
	for layer, had := range phases {
		if want := []runtime.Phase{runtime.Waiting, runtime.Downloading, runtime.Downloaded, runtime.Unpacking, runtime.Done}; !slices.Equal(had, want) {
			t.Errorf("layer %s was %v; want %v", layer, had, want)
		}
	}

	registry.Misbehave(faultregistry.Faults{Status: http.StatusInternalServerError})
	for _, policy := range []runtime.Pull{runtime.PullMissing, runtime.PullNever, ""} {
		if err := b.Prepare(t.Context(), pulling(b, t, image, policy), func(runtime.Progress) {}); err != nil {
			t.Errorf("Prepare with %q, the image being there: %v", policy, err)
		}
	}
	if err := b.Prepare(t.Context(), pulling(b, t, image, runtime.PullAlways), func(runtime.Progress) {}); err == nil {
		t.Error("Prepare with \"always\" did not ask the registry")
	}
}

func TestEachWayAPullFailsHasItsOwnMessage(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P16 F47")
	b := newBench(t, container.Options{})
	registry, image := newRegistry(t)
	login, private := newRegistry(t)
	login.Misbehave(faultregistry.Faults{Status: http.StatusUnauthorized})
	broken, unlucky := newRegistry(t)
	broken.Misbehave(faultregistry.Faults{Status: http.StatusInternalServerError})
	foreign, err := registry.PushIndex("foreign:1", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: newImage(t), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()

	for _, test := range []struct{ name, image, want, hint string }{
		{"no such tag", registry.Addr() + "/app:none", "does not exist on " + registry.Addr(), engineName() + " pull"},
		{"no such repository", registry.Addr() + "/nothing:1", "does not exist on " + registry.Addr(), ""},
		{"login", private, "wants a login", engineName() + " login " + login.Addr()},
		{"no registry", nobody.Addr().String() + "/app:1", nobody.Addr().String() + " cannot be reached", "curl -I http://" + nobody.Addr().String()},
		{"platform", foreign, "has nothing for linux/", engineName() + " manifest inspect"},
		{"server error", unlucky, broken.Addr() + " broke off", engineName() + " pull"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := b.Prepare(t.Context(), pulling(b, t, test.image, runtime.PullMissing), func(runtime.Progress) {})
			fault := new(runtime.Fault)
			if !errors.As(err, &fault) || fault.Code != "image_pull" || !strings.Contains(fault.Hint, test.hint) {
				t.Errorf("Prepare = %v, fault %+v; want image_pull with the hint %q", err, fault, test.hint)
			}
			if err != nil && (!strings.Contains(err.Error(), "image "+test.image+": ") || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("Prepare = %v; want the image and %q", err, test.want)
			}
		})
	}
	err = b.Prepare(t.Context(), pulling(b, t, image, runtime.PullNever), func(runtime.Progress) {})
	if fault := new(runtime.Fault); !errors.As(err, &fault) || fault.Hint != engineName()+" pull "+image {
		t.Errorf("Prepare with \"never\" = %v; want the command that pulls", err)
	}
	if _, err := b.Start(t.Context(), pulling(b, t, image, runtime.PullNever)); err == nil || !strings.Contains(err.Error(), image+" is not on this machine") {
		t.Errorf("Start without the image = %v", err)
	}
	if err := b.Prepare(t.Context(), pulling(b, t, "Not A Name", runtime.PullMissing), func(runtime.Progress) {}); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("Prepare of no name = %v; want ErrInvalid", err)
	}
}

func TestAPullForWhichThereIsNoSpaceSaysSo(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "P9 F47")
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.Env})
	p.On("POST", "/images/create", -1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		const said = "failed to register layer: write /usr/lib/libicudata.so: no space left on device"
		_, _ = fmt.Fprintf(w, "%s\n%s\n", `{"status":"Downloading","id":"4f4fb700ef54","progressDetail":{"current":1024,"total":4096}}`,
			`{"error":"`+said+`","errorDetail":{"message":"`+said+`"}}`)
	})
	err := b.Prepare(t.Context(), pulling(b, t, "locald-test/large:1", runtime.PullMissing), func(runtime.Progress) {})
	fault := new(runtime.Fault)
	if !errors.As(err, &fault) || fault.Code != "disk_full" || fault.Hint != engineName()+" system df" || !strings.Contains(err.Error(), "image locald-test/large:1: the engine's disk is full") {
		t.Errorf("Prepare = %v, %+v; want disk_full with the image and system df", err, fault)
	}
}

func TestAPullThatBreaksIsTriedAgain(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "F47")
	b := newBench(t, container.Options{})
	p := newProxy(t)
	b.Runtime = open(t, container.Options{Owner: b.owner, Getenv: p.Env})
	_, image := newRegistry(t)
	p.On("POST", "/images/create", 1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"status":"Downloading","progressDetail":{"current":1,"total":100},"id":"abc"}`)
		fmt.Fprintln(w, `{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}`)
	})
	var seen steps
	if err := b.Prepare(t.Context(), pulling(b, t, image, runtime.PullMissing), seen.report); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(seen.text(), "unexpected EOF; trying again") {
		t.Errorf("progress = %v; want the reason of the second try", seen.all)
	}
}

func TestStoredCredentialsAreSent(t *testing.T) {
	p := newProxy(t)
	_, image := newRegistry(t)
	domain, _, _ := strings.Cut(image, "/")
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)
	t.Setenv("PATH", config+":"+os.Getenv("PATH"))
	stored := fmt.Sprintf(`{"auths":{%q:{"auth":%q}},"credHelpers":{"helped.example":"test"}}`, domain, base64.StdEncoding.EncodeToString([]byte("ana:open sesame")))
	const helper = "#!/bin/sh\nread server\necho '{\"Username\":\"ben\",\"Secret\":\"of the helper for '$server'\"}'\n"
	if err := os.WriteFile(filepath.Join(config, "docker-credential-test"), []byte(helper), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(stored), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, container.Options{Getenv: p.Env})
	var sent string
	p.On("POST", "/images/create", -1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		sent = r.Header.Get("X-Registry-Auth")
		if strings.Contains(r.URL.RawQuery, "example") {
			http.Error(w, `{"message":"no such host"}`, http.StatusInternalServerError)
			return
		}
		forward.ServeHTTP(w, r)
	})
	if err := b.Prepare(t.Context(), pulling(b, t, image, runtime.PullMissing), func(runtime.Progress) {}); err != nil {
		t.Fatal(err)
	}
	want := func(username, password string) {
		t.Helper()
		plain, err := base64.URLEncoding.DecodeString(sent)
		if err != nil || !strings.Contains(string(plain), `"username":"`+username+`"`) || !strings.Contains(string(plain), `"password":"`+password+`"`) {
			t.Errorf("X-Registry-Auth = %s, %v; want %s's", plain, err, username)
		}
	}
	want("ana", "open sesame")
	for image, known := range map[string]bool{"helped.example/app:1": true, "other.example/app:1": false} {
		sent = "none"
		if err := b.Prepare(t.Context(), pulling(b, t, image, runtime.PullMissing), func(runtime.Progress) {}); err == nil {
			t.Errorf("%s was pulled", image)
		}
		if known {
			want("ben", "of the helper for helped.example")
		} else if sent != "" {
			t.Errorf("X-Registry-Auth = %q; want nothing for a registry without a login", sent)
		}
	}
}
