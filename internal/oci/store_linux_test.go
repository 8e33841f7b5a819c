package oci

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/locald/locald/hack/faultregistry"
)

func TestPruneKeepsWhatIsInUse(t *testing.T) {
	t.Parallel()
	r, s := listen(t), newStore(t, Options{})
	shared := noise(t, "shared", 10_000)
	used := push(t, r, "used:1", imageOf(t, shared, layerOf(t, file("used", "x"))))
	kept := push(t, r, "kept:1", imageOf(t, layerOf(t, file("kept", "x"))))
	idle := push(t, r, "idle:1", imageOf(t, shared, noise(t, "idle", 50_000), layerOf(t, dir("closed", 0))))
	for name, owner := range map[string]string{used: "run 7", kept: "", idle: ""} {
		if _, err := s.Pull(t.Context(), name, PullOptions{Owner: owner}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List(t.Context())
	if err != nil || len(all) != 3 || all[0].Reference != idle || all[0].Size != 60_000 || !all[0].Complete || !slices.Equal(all[2].InUse, []string{"run 7"}) {
		t.Fatalf("List = %+v, %v", all, err)
	}
	s = reopen(t, s.dir, Options{}) // a lease outlives who took it
	if _, err := s.Remove(t.Context(), used); !IsKind(err, InUse) || !strings.Contains(err.Error(), "run 7") {
		t.Errorf("Remove of an image in use = %v", err)
	}
	freed, err := s.Prune(t.Context(), func(l Listed) bool { return l.Reference == kept })
	if err != nil || freed < 50_000 || freed > 60_000 {
		t.Errorf("Prune freed %d, %v; want 50,000 and the manifest", freed, err)
	}
	for name, want := range map[string]bool{used: true, kept: true, idle: false} {
		if _, err := s.Image(name); (err == nil) != want || err != nil && !IsKind(err, NotFound) {
			t.Errorf("Image(%s) = %v; want it there: %v", name, err, want)
		}
	}
	if leases, err := s.Leases(); err != nil || len(leases) != 1 || leases["run 7"] == "" {
		t.Errorf("Leases = %v, %v", leases, err)
	}
	long := time.Now().Add(-time.Hour)
	manifest := s.path("blobs", strings.TrimPrefix(all[2].Digest, "sha256:"))
	if err := errors.Join(os.Chtimes(manifest, long, long), s.Release("run 7"), s.Release("run 7")); err != nil {
		t.Error(err)
	}
	if all, err := s.List(t.Context()); err != nil || len(all) != 2 || time.Since(all[1].Used) > time.Minute {
		t.Errorf("List = %+v, %v; want it used when the lease ended", all, err)
	}
	if freed, err := s.Remove(t.Context(), used); err != nil || freed < 10_000 {
		t.Errorf("Remove freed %d, %v", freed, err)
	}
	if _, err := s.Prune(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if left := remains(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if err := s.Lease(t.Context(), "run 8", all[0].Digest); !IsKind(err, NotFound) {
		t.Errorf("Lease of what was pruned = %v", err)
	}
}

// TestPruneLeavesAPullAlone: what has come already is not taken away, and what
// a killed pull has left is.
func TestPruneLeavesAPullAlone(t *testing.T) {
	t.Parallel()
	r, s := listen(t), newStore(t, Options{})
	big, small := noise(t, "big", 500_000), layerOf(t, file("a", "x"))
	name := push(t, r, "app:1", imageOf(t, big, small))
	r.Misbehave(faultregistry.Faults{CutAfter: 200_000, Cuts: 1, Only: digestText(t, big)})
	pruned := false
	_, err := s.Pull(t.Context(), name, PullOptions{Report: func(p Progress) {
		if p.Phase == Retrying && !pruned {
			pruned = true
			if _, err := reopen(t, s.dir, Options{}).Prune(t.Context(), nil); err != nil {
				t.Error(err)
			}
		}
	}})
	if err != nil || !pruned {
		t.Fatalf("Pull = %v, pruned %v", err, pruned)
	}
	err = errors.Join(
		s.placeJSON(lease{Owner: "pull of the dead", Digest: digestOf(nil), Held: true}, "leases", named("pull of the dead")),
		s.place([]byte("{"), "leases", named("no lease")),
		s.place(nil, "refs", named("no reference")),
		os.WriteFile(s.path("partial", strings.Repeat("a", 64)+"-"+strings.Repeat("b", 64)), []byte("x"), 0o600),
		os.MkdirAll(s.path("tmp", "layer-"+strings.Repeat("c", 64), "fs"), 0o700),
		os.WriteFile(s.path("tmp", "file-1"), nil, 0o600),
		os.MkdirAll(s.path("trash", "1", "x"), 0o700),
		forget(s, name),
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if left := remains(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestDamageIsFound: by a power cut, or by hand.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	r := listen(t)
	name := push(t, r, "app:1", imageOf(t, layerOf(t, file("etc/a", "content"))))
	for what, damage := range map[string]func(s *Store, i *Image) error{
		"manifest": func(s *Store, i *Image) error {
			return os.WriteFile(s.path("blobs", strings.TrimPrefix(i.Digest, "sha256:")), []byte("{}"), 0o600)
		},
		"reference": func(s *Store, _ *Image) error {
			found, err := filepath.Glob(s.path("refs", "*"))
			return errors.Join(err, os.WriteFile(found[0], nil, 0o600))
		},
		"layer.json": func(_ *Store, i *Image) error {
			return os.WriteFile(filepath.Join(i.Layers[0], "..", manifestOfLayer), nil, 0o600)
		},
		"a file after a power cut": func(s *Store, i *Image) error {
			s.boot = "another boot"
			return os.Truncate(filepath.Join(i.Layers[0], "etc/a"), 0)
		},
		"a directory": func(_ *Store, i *Image) error { return os.RemoveAll(i.Layers[0]) },
	} {
		s := newStore(t, Options{})
		image, err := s.Pull(t.Context(), name, PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := damage(s, image); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Image(name); !IsKind(err, NotFound) {
			t.Errorf("%s: Image = %v; want it not to be there", what, err)
		}
		image, err = s.Pull(t.Context(), name, PullOptions{})
		if err != nil || read(t, image, "etc/a") != "content" {
			t.Errorf("%s: the next pull: %v", what, err)
		}
	}
	s := newStore(t, Options{})
	if _, err := s.Pull(t.Context(), name, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	s.boot = "another boot"
	r.Misbehave(faultregistry.Faults{Status: 500})
	if _, err := s.Image(name); err != nil {
		t.Errorf("in the next boot, undamaged: %v", err)
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]string{
		"postgres": "docker.io/library/postgres:latest", "postgres:15": "docker.io/library/postgres:15", "team/app": "docker.io/team/app:latest",
		"localhost:5000/app:1": "localhost:5000/app:1", "[::1]:5000/app": "[::1]:5000/app:latest", "example.com/a/b/c:v1": "example.com/a/b/c:v1",
		"postgres:15@" + digest: "docker.io/library/postgres@" + digest,
	} {
		if r, err := parse(text); err != nil || r.full != want {
			t.Errorf("parse(%q) = %s, %v; want %s", text, r.full, err, want)
		}
	}
	for _, text := range []string{"", "App", "a b", "https://example.com/app", "app:", "app:1:2", "app@sha256:12", "../app", "app:" + strings.Repeat("x", 200)} {
		if r, err := parse(text); !IsKind(err, InvalidReference) {
			t.Errorf("parse(%q) = %+v, %v", text, r, err)
		}
	}
}

func TestVariants(t *testing.T) {
	t.Parallel()
	index := []byte(`{"schemaVersion":2,"manifests":[` +
		`{"digest":"sha256:` + strings.Repeat("1", 64) + `","platform":{"os":"linux","architecture":"arm","variant":"v6"}},` +
		`{"digest":"sha256:` + strings.Repeat("2", 64) + `","platform":{"os":"linux","architecture":"arm","variant":"v7"}},` +
		`{"digest":"sha256:` + strings.Repeat("3", 64) + `","platform":{"os":"linux","architecture":"arm64","variant":"v8"}},` +
		`{"digest":"sha256:` + strings.Repeat("4", 64) + `","platform":{"os":"windows","architecture":"amd64"}}]}`)
	for want, p := range map[string]v1.Platform{
		"2": {OS: "linux", Architecture: "arm", Variant: "v7"}, "1": {OS: "linux", Architecture: "arm", Variant: "v6"}, "3": {OS: "linux", Architecture: "arm64", Variant: "v8"},
	} {
		if got, err := choose(index, p); err != nil || !strings.HasPrefix(got.Hex, want) {
			t.Errorf("for %s: %s, %v", p, got, err)
		}
	}
	if _, err := choose(index, v1.Platform{OS: "linux", Architecture: "amd64"}); !IsKind(err, NoPlatform) {
		t.Errorf("windows for linux: %v", err)
	}
}

// forget removes a reference and nothing else, as a crash in Remove would.
func forget(s *Store, image string) error {
	r, err := parse(image)
	return errors.Join(err, os.Remove(s.path("refs", named(r.full))))
}

func TestAStoreThatCannotBeMade(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(path, "images"), Options{}); !IsKind(err, Storage) {
		t.Errorf("Open = %v", err)
	}
}
