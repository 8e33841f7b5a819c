package builtin_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/builtin"
)

// derived is the shell image with further files and another configuration, in
// the registry.
func derived(t *testing.T, files []*tar.Header, change func(*v1.Config)) string {
	t.Helper()
	from, err := name.ParseReference(shellImage(t), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(from)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	for _, h := range files {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		err := w.WriteHeader(h)
		if h.Typeflag == tar.TypeReg {
			_, content := io.WriteString(w, h.Name) // each file has its own name in it
			err = errors.Join(err, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	change(&config.Config)
	if image, err = mutate.Config(image, config.Config); err != nil {
		t.Fatal(err)
	}
	to := from.Context().Tag(strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")))
	if err := remote.Write(to, image); err != nil {
		t.Fatal(err)
	}
	return to.Name()
}

// run runs a script to its end and returns what it wrote. It is run number n of
// the service.
func run(t *testing.T, r *builtin.Runtime, n int, script string, image runtime.Image) string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	spec := runtime.Spec{
		Project: runtime.Project{ID: "p", Name: "p", Dir: "/"}, Service: "web", Run: n, Owner: runtime.Owner(t.Name()),
		Command: []string{"sh", "-c", script}, Log: log, Image: &image,
	}
	if err := r.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
		t.Fatal(err)
	}
	in, err := r.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := in.Wait(t.Context())
	if err := errors.Join(err, in.Remove(t.Context())); err != nil {
		t.Fatal(err)
	}
	if exit.Code != 0 {
		t.Errorf("%s: %v", script, exit)
	}
	return output(t, log)
}

// A volume begins as the image's directory and is then its own, and what the
// image calls a volume is one, for as long as the container is there.
func TestVolumes(t *testing.T) {
	image := derived(t, []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "data", Mode: 0o750},
		{Typeflag: tar.TypeReg, Name: "data/seed", Mode: 0o640},
		{Typeflag: tar.TypeDir, Name: "own", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: "own/seed", Mode: 0o644},
	}, func(c *v1.Config) { c.Volumes = map[string]struct{}{"/own": {}, "/data": {}, "/fast": {}} })
	r := open(t, runtime.Owner(t.Name()))
	with := runtime.Image{Name: image, Mounts: []runtime.Mount{{Source: "kept", Target: "/data"}}, Tmpfs: []string{"/fast"}}

	const look = "cd /data && stat -c %a . seed && cat seed && echo && "
	if got := run(t, r, 1, look+"echo mine >seed", with); got != "750\n640\ndata/seed\n" {
		t.Errorf("a volume that is new has %q", got)
	}
	if got := run(t, r, 2, look+"rm seed; touch other", with); got != "750\n640\nmine\n\n" {
		t.Errorf("a volume that has been used has %q", got)
	}
	if got := run(t, r, 3, "ls -A /data", with); got != "other\n" {
		t.Errorf("a volume from which a file was deleted has %q", got)
	}
	for n := range 2 {
		const look = "cd /own && stat -c %a . && cat seed && echo && echo mine >seed && grep -c -E ' /(own|fast) ' /proc/self/mountinfo"
		if got := run(t, r, 4+n, look, with); got != "1777\nown/seed\n2\n" {
			t.Errorf("a volume without a name has %q", got)
		}
	}
	if err := r.RemoveVolumes(t.Context(), "p", "web", "kept"); err != nil {
		t.Error(err)
	}
	if has, err := r.HasVolume(t.Context(), "p", "kept"); has || err != nil {
		t.Errorf("it is there after it was removed, or not known: %v", err)
	}
	if got := run(t, r, 6, look+"true", with); got != "750\n640\ndata/seed\n" {
		t.Errorf("a volume that was removed begins with %q", got)
	}
	if _, err := os.Stat(r.At("p/web#5")); err == nil {
		t.Error("the directory of a container that was removed is there")
	}
}

// Whose the files of an image are, and whom its programs may become.
func TestUsers(t *testing.T) {
	image := derived(t, []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "home/node", Mode: 0o700, Uid: 999, Gid: 999},
		{Typeflag: tar.TypeReg, Name: "home/node/f", Mode: 0o640, Uid: 999, Gid: 7},
		{Typeflag: tar.TypeReg, Name: "data/f", Mode: 0o600, Uid: 8},
	}, func(c *v1.Config) { c.Volumes = map[string]struct{}{"/data": {}} })
	r := open(t, runtime.Owner(t.Name()))
	const look = "id -u; cd /home/node; stat -c %u:%g . f /data/f; cp -p f /tmp/f && stat -c %u:%g /tmp/f"
	if os.Geteuid() != 0 && os.Getenv(builtin.UsersVariable) == "" {
		if got := run(t, r, 1, look, runtime.Image{Name: image}); got != "999\n999:999\n999:999\n999:999\n999:999\n" {
			t.Errorf("the only user is told %q", got)
		}
		return
	}
	if got := run(t, r, 1, look, runtime.Image{Name: image}); got != "0\n999:999\n999:7\n8:0\n999:7\n" {
		t.Errorf("root is told %q", got)
	}
	if got := run(t, r, 2, look+"; echo mine >f && cat f", runtime.Image{Name: image, User: "999"}); got != "999\n999:999\n999:7\n8:0\n999:999\nmine\n" {
		t.Errorf("another user is told %q", got)
	}
}
