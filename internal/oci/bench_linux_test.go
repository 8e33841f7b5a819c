package oci

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/locald/locald/hack/faultregistry"
)

// BenchmarkPull: a cold pull of postgres:15 from a registry on the loopback,
// unpacked and ready to be mounted.
func BenchmarkPull(b *testing.B) {
	image := served(b)
	for b.Loop() {
		dir := b.TempDir()
		s, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		got, err := s.Pull(b.Context(), image, PullOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(got.Size)
		b.StopTimer()
		_ = removeTree(dir)
		b.StartTimer()
	}
}

// BenchmarkTar: the same by curl and tar, layer for layer, as a yardstick.
func BenchmarkTar(b *testing.B) {
	image := served(b)
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	r, err := parse(image)
	if err != nil {
		b.Fatal(err)
	}
	c, err := s.dial(b.Context(), r)
	if err != nil {
		b.Fatal(err)
	}
	got, err := c.resolve(b.Context(), s, func(string) {})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		dir := b.TempDir()
		for _, l := range got.layers {
			url := "http://" + r.domain + "/v2/" + r.path + "/blobs/" + l.blob.String()
			into, err := os.MkdirTemp(dir, "")
			if err != nil {
				b.Fatal(err)
			}
			out, err := exec.CommandContext(b.Context(), "sh", "-c", "curl -sf "+url+" | tar xzf - -C "+into).CombinedOutput()
			if err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
		}
		b.StopTimer()
		_ = removeTree(dir)
		b.StartTimer()
	}
}

// served is the image of a Postgres, in a registry with all test images. A test
// that runs as another user is given that of its parent.
func served(t testing.TB) string {
	t.Helper()
	if image := os.Getenv("LOCALD_OCI_IMAGE"); image != "" {
		return image
	}
	r, err := faultregistry.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	names, err := r.PushTestImages()
	for _, name := range names {
		if strings.HasPrefix(name, r.Addr()+"/postgres:") {
			return name
		}
	}
	if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), "postgres") {
		t.Fatalf("no image of Postgres: %v", err)
	}
	t.Skipf("no image of Postgres; hack/test-deps builds it: %v", err)
	return ""
}
