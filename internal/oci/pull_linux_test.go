package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/locald/locald/hack/faultregistry"
)

const ordinary = 4242

// TestAsAnOrdinaryUser runs every other test again without any privilege.
func TestAsAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	image := served(t)
	dir, err := os.MkdirTemp("", "oci-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeTree(dir) })
	if err := os.Chown(dir, ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^Test", "-test.skip=OrdinaryUser", "-test.v")
	command.Dir = dir
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "LOCALD_OCI_IMAGE=" + image}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	out, err := command.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestPostgres")) {
		t.Errorf("as uid %d: %v\n%s", ordinary, err, out)
	}
}

// newStore is a store in a directory of its own that tries again at once.
func newStore(t *testing.T, o Options) *Store {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { _ = removeTree(dir) }) // before TempDir's own, which cannot delete closed directories
	return reopen(t, filepath.Join(dir, "images"), o)
}

func reopen(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	o.Pause = time.Millisecond
	if o.Keychain == nil {
		o.Keychain = authn.NewMultiKeychain()
	}
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func listen(t *testing.T) *faultregistry.Registry {
	t.Helper()
	r, err := faultregistry.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// entry is one of a tar.
type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

func dir(name string, mode int64) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, ""}
}

func link(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, ""}
}

func hard(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		e.Size = int64(len(e.content))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(content)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// blob is a layer of any bytes, and the digest of the tar that it claims to be.
type blob struct {
	v1.Layer
	diffID v1.Hash
}

func (b blob) DiffID() (v1.Hash, error) { return b.diffID, nil }

func layerOf(t testing.TB, entries ...entry) v1.Layer {
	t.Helper()
	plain := archive(t, entries...)
	return blob{static.NewLayer(zipped(t, plain), types.DockerLayer), digestOf(plain)}
}

// noise is a layer with one file that no compression makes smaller.
func noise(t testing.TB, name string, size int) v1.Layer {
	t.Helper()
	content := make([]byte, size)
	state := uint32(len(name) + 7)
	for i := range content {
		state = state*1664525 + 1013904223
		content[i] = byte(state >> 24)
	}
	return layerOf(t, file(name, string(content)))
}

func imageOf(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	return configured(t, func(c *v1.ConfigFile) {}, layers...)
}

func configured(t testing.TB, set func(*v1.ConfigFile), layers ...v1.Layer) v1.Image {
	t.Helper()
	image, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.DockerManifestSchema2), layers...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", goruntime.GOARCH
	set(c)
	image, err = mutate.ConfigFile(image, c)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func push(t testing.TB, r *faultregistry.Registry, tag string, image v1.Image) string {
	t.Helper()
	name, err := r.Push(tag, image)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// shortOf is what messages call a layer.
func shortOf(t testing.TB, l v1.Layer) string {
	t.Helper()
	h, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return shortened(h)
}

// remains lists what is in the store, without its own directories.
func remains(t *testing.T, s *Store) (all []string) {
	t.Helper()
	for _, part := range []string{"blobs", "layers", "refs", "leases", "partial", "tmp", "trash"} {
		entries, err := os.ReadDir(s.path(part))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, part+"/"+e.Name())
		}
	}
	return all
}

// unfinished are remains that should not be there after a failure: all but
// manifests and configurations, layers that are whole, and parts to go on from.
func unfinished(t *testing.T, s *Store) []string {
	t.Helper()
	return slices.DeleteFunc(remains(t, s), func(p string) bool {
		if name, is := strings.CutPrefix(p, "layers/"); is {
			c, err := s.unpacked(v1.Hash{Algorithm: "sha256", Hex: name})
			return c != nil && err == nil
		}
		return strings.HasPrefix(p, "blobs/") || strings.HasPrefix(p, "partial/")
	})
}

func read(t *testing.T, i *Image, name string) string {
	t.Helper()
	real, err := i.locate(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	content, err := os.ReadFile(real)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestPostgres pulls the image that the product's users run.
func TestPostgres(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{})
	name := served(t)
	got, err := s.Pull(t.Context(), name, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Layers) != 4 || got.Config.StopSignal != "SIGINT" || !slices.Equal(got.Config.Cmd, []string{"postgres"}) || got.Platform != "linux/"+goruntime.GOARCH {
		t.Errorf("image = %+v", got)
	}
	if _, ok := got.Config.ExposedPorts["5432/tcp"]; !ok {
		t.Errorf("ports = %v", got.Config.ExposedPorts)
	}
	for _, test := range []struct {
		text string
		want User
	}{
		{"", User{Home: "/root", Name: "root"}},
		{"postgres", User{UID: 999, GID: 999, Name: "postgres", Home: "/var/lib/postgresql"}},
		{"999:nogroup", User{UID: 999, GID: 65534, Name: "postgres", Home: "/var/lib/postgresql"}},
		{"4711:12", User{UID: 4711, GID: 12, Home: "/"}},
	} {
		if u, err := got.User(test.text); err != nil || fmt.Sprint(u) != fmt.Sprint(test.want) {
			t.Errorf("User(%q) = %+v, %v; want %+v", test.text, u, err, test.want)
		}
	}
	if _, err := got.User("mallory"); !IsKind(err, NotFound) {
		t.Errorf("User of nobody = %v", err)
	}
	info, err := os.Stat(filepath.Join(got.Layers[0], "var/lib/postgresql/data"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory = %v, %v; want 0700", info, err)
	}
	if want := uint32(999); s.privileged && info.Sys().(*syscall.Stat_t).Uid != want {
		t.Errorf("its owner is %d; want %d", info.Sys().(*syscall.Stat_t).Uid, want)
	}
	again, err := s.Image(name)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
		t.Errorf("Image = %+v, %v; want %+v", again, err, got)
	}
	if left := remains(t, s); slices.ContainsFunc(left, func(p string) bool { return strings.HasPrefix(p, "partial/") || strings.HasPrefix(p, "tmp/") }) {
		t.Errorf("left after a pull: %q", left)
	}
	if dir, err := os.Stat(s.dir); err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("the store is %v, %v; want 0700", dir.Mode(), err)
	}
}

// TestEachWayAPullFails is point 4 of what must be shown: a clear error, no
// half-unpacked state, and the next try works.
func TestEachWayAPullFails(t *testing.T) {
	t.Parallel()
	small := layerOf(t, file("etc/name", "good"))
	big := noise(t, "big", 300_000)
	good := imageOf(t, small, big)
	escaping := layerOf(t, file("a", "x"), file("../../evil", "x"))
	wrongTar := blob{small, digestOf([]byte("something else"))}
	garbage := blob{static.NewLayer([]byte("this is no archive at all"), types.DockerLayer), digestOf([]byte("this is no archive at all"))}
	halfTar := archive(t, file("a", strings.Repeat("x", 4000)))[:2000]
	half := blob{static.NewLayer(zipped(t, halfTar), types.DockerLayer), digestOf(halfTar)}
	halfGzip := zipped(t, archive(t, file("a", strings.Repeat("xyz", 4000))))
	cut := blob{static.NewLayer(halfGzip[:len(halfGzip)/2], types.DockerLayer), digestOf([]byte("?"))}
	foreign := configured(t, func(c *v1.ConfigFile) { c.Architecture = "s390x" }, small)
	for _, test := range []struct {
		name   string
		image  v1.Image
		faults faultregistry.Faults
		as     string // instead of what was pushed; %s is the registry
		kind   Kind
		layer  v1.Layer
		says   string
		hint   string
	}{
		{name: "no name", as: "Not A Name", kind: InvalidReference, says: "it is not an image's name", hint: "postgres:15"},
		{name: "upper case", as: "%s/App:1", kind: InvalidReference, says: "lowercase"},
		{name: "no such tag", as: "%s/app:none", kind: NotFound, says: "404", hint: "/v2/app/tags/list"},
		{name: "no such repository", as: "%s/nothing:1", kind: NotFound, says: "404"},
		{name: "login", faults: faultregistry.Faults{User: "ana", Word: "secret"}, kind: Unauthorized, says: "needs a login", hint: "docker login 127.0.0.1:"},
		{name: "forbidden", faults: faultregistry.Faults{Status: http.StatusForbidden}, kind: Unauthorized, says: "403"},
		{name: "server error", faults: faultregistry.Faults{Status: http.StatusInternalServerError}, kind: Network, says: "500 internal server error", hint: "curl -I http://127.0.0.1:"},
		{name: "nobody listens", as: "127.0.0.1:1/app:1", kind: Network, says: "connection refused", hint: "curl"},
		{name: "wrong architecture", image: foreign, kind: NoPlatform, says: "it is for linux/s390x and this machine is linux/" + goruntime.GOARCH},
		{name: "flipped byte", faults: faultregistry.Faults{Only: "sha256:", Flip: 200_000}, kind: Corrupt, layer: big, says: "its bytes are not those of its digest"},
		{name: "truncated in the registry", faults: faultregistry.Faults{Short: 100_000, Only: digestText(t, big)}, kind: Corrupt, layer: big, says: "the registry has 100000 bytes of it"},
		{name: "always cut", faults: faultregistry.Faults{CutAfter: 60_000, Only: digestText(t, big), NoRange: true}, kind: Network, layer: big, says: "it broke off after"},
		{name: "stalled", faults: faultregistry.Faults{Stall: 60_000, Only: digestText(t, big), NoRange: true}, kind: Network, layer: big, says: "nothing came for"},
		{name: "another tar", image: imageOf(t, wrongTar), kind: Corrupt, layer: wrongTar, says: "and the configuration says"},
		{name: "no tar", image: imageOf(t, garbage), kind: Corrupt, layer: garbage, says: "it cannot be unpacked"},
		{name: "half a tar", image: imageOf(t, half), kind: Corrupt, layer: half, says: "it cannot be unpacked: unexpected EOF"},
		{name: "half a gzip", image: imageOf(t, cut), kind: Corrupt, layer: cut, says: "it cannot be unpacked: unexpected EOF"},
		{name: "escaping path", image: imageOf(t, small, escaping), kind: Unsafe, layer: escaping, says: `"../../evil" leaves the image`, hint: "do not run"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := listen(t)
			if test.image == nil {
				test.image = good
			}
			name := push(t, r, "app:1", test.image)
			wanted := name
			if test.as != "" {
				wanted = strings.ReplaceAll(test.as, "%s", r.Addr())
			}
			s := newStore(t, Options{Tries: 3, Stall: 300 * time.Millisecond})
			r.Misbehave(test.faults)
			_, err := s.Pull(t.Context(), wanted, PullOptions{})
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("Pull = %v; want an *Error", err)
			}
			if e.Kind != test.kind || !strings.Contains(e.Error(), test.says) || !strings.Contains(e.Hint, test.hint) || e.Hint == "" {
				t.Errorf("Pull = %s: %v (hint: %s); want %s: … %s … (hint: … %s …)", e.Kind, e, e.Hint, test.kind, test.says, test.hint)
			}
			if !strings.HasPrefix(e.Error(), "image "+wanted+": ") {
				t.Errorf("Pull = %v; want the image in front", e)
			}
			if domain, _, _ := strings.Cut(wanted, "/"); test.kind != InvalidReference && !strings.Contains(e.Error(), "registry "+domain+": ") {
				t.Errorf("Pull = %v; want the registry", e)
			}
			if test.layer != nil && !strings.Contains(e.Error(), "layer "+shortOf(t, test.layer)+": ") {
				t.Errorf("Pull = %v; want layer %s", e, shortOf(t, test.layer))
			}
			if left := unfinished(t, s); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			if test.kind != Network {
				if left := remains(t, s); slices.ContainsFunc(left, func(p string) bool {
					return strings.HasPrefix(p, "partial/") && test.layer != nil && strings.Contains(p, digestText(t, test.layer)[7:])
				}) {
					t.Errorf("the bad download was kept: %q", left)
				}
			}
			if _, err := os.Lstat(filepath.Join(s.dir, "evil")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("evil = %v", err)
			}
			r.Misbehave(faultregistry.Faults{})
			image, err := s.Pull(t.Context(), push(t, r, "app:1", good), PullOptions{})
			if err != nil {
				t.Fatalf("the next try: %v", err)
			}
			if content := read(t, image, "etc/name"); content != "good" {
				t.Errorf("etc/name = %q", content)
			}
		})
	}
}

func digestText(t testing.TB, l v1.Layer) string {
	t.Helper()
	h, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func TestAnIndexWithoutOurPlatformNamesWhatItHas(t *testing.T) {
	t.Parallel()
	r, s := listen(t), newStore(t, Options{})
	image := imageOf(t, layerOf(t, file("a", "x")))
	add := func(index v1.ImageIndex, p v1.Platform) v1.ImageIndex {
		return mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &p}})
	}
	others := add(add(add(empty.Index, v1.Platform{OS: "linux", Architecture: "s390x"}), v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}), v1.Platform{OS: "unknown", Architecture: "unknown"})
	name, err := r.PushIndex("app:1", others)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), name, PullOptions{})
	if !IsKind(err, NoPlatform) || !strings.HasSuffix(err.Error(), "it has nothing for linux/"+goruntime.GOARCH+", only linux/arm/v6, linux/s390x") {
		t.Errorf("Pull = %v", err)
	}
	if name, err = r.PushIndex("app:1", add(others, v1.Platform{OS: "linux", Architecture: goruntime.GOARCH})); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(t.Context(), name, PullOptions{}); err != nil {
		t.Errorf("with ours: %v", err)
	}
}

func TestACutDownloadGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		ranges bool
	}{{"with ranges", true}, {"without", false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, s := listen(t), newStore(t, Options{Parallel: 1})
			layer := noise(t, "big", 900_000)
			name := push(t, r, "app:1", imageOf(t, layer))
			only := digestText(t, layer)
			r.Misbehave(faultregistry.Faults{CutAfter: 200_000, Cuts: 2, Only: only, NoRange: !test.ranges})
			var reasons []string
			_, err := s.Pull(t.Context(), name, PullOptions{Report: func(p Progress) {
				if p.Phase == Retrying {
					reasons = append(reasons, p.Reason)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			if len(reasons) != 2 || reasons[0] == "" {
				t.Errorf("reasons = %q; want two", reasons)
			}
			var ranges []string
			for _, one := range r.Requests() {
				if strings.HasSuffix(one.Path, only) {
					ranges = append(ranges, one.Range)
				}
			}
			if len(ranges) != 3 || ranges[0] != "" || ranges[1] == "" {
				t.Errorf("asked for %q; want everything, and twice the rest", ranges)
			}
		})
	}
}

// TestACrashedDownloadGoesOn: what a killed process has left is used, and what
// it has left damaged does no harm.
func TestACrashedDownloadGoesOn(t *testing.T) {
	t.Parallel()
	r := listen(t)
	layer := noise(t, "big", 900_000)
	name := push(t, r, "app:1", imageOf(t, layer))
	only := digestText(t, layer)
	for _, damaged := range []bool{false, true} {
		s := newStore(t, Options{Tries: 1})
		r.Misbehave(faultregistry.Faults{CutAfter: 500_000, Only: only})
		if _, err := s.Pull(t.Context(), name, PullOptions{}); !IsKind(err, Network) {
			t.Fatalf("Pull = %v; want it to break off", err)
		}
		parts, err := filepath.Glob(s.path("partial", "*"))
		if err != nil || len(parts) != 1 {
			t.Fatalf("parts = %q, %v; want one", parts, err)
		}
		diffID, _, _ := strings.Cut(filepath.Base(parts[0]), "-")
		work := s.path("tmp", "layer-"+diffID, "fs", "closed")
		if err := os.MkdirAll(work, 0o700); err != nil { // a crash in the middle of unpacking
			t.Fatal(err)
		}
		if err := os.Chmod(work, 0); err != nil {
			t.Fatal(err)
		}
		if damaged {
			if err := os.WriteFile(parts[0], bytes.Repeat([]byte("no"), 10_000), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r.Misbehave(faultregistry.Faults{})
		if _, err := s.Pull(t.Context(), name, PullOptions{}); err != nil {
			t.Fatalf("damaged %v: %v", damaged, err)
		}
		var ranges []string
		for _, one := range r.Requests() {
			if strings.HasSuffix(one.Path, only) {
				ranges = append(ranges, one.Range)
			}
		}
		if want := map[bool]int{false: 1, true: 2}[damaged]; len(ranges) != want || ranges[0] == "" {
			t.Errorf("damaged %v: asked for %q; want %d, the rest first", damaged, ranges, want)
		}
		if left := unfinished(t, s); len(left) != 1 { // the reference
			t.Errorf("left: %q", left)
		}
	}
}

// TestSeveralPullsAtOnceDoTheWorkOnce: two projects start with the same image.
func TestSeveralPullsAtOnceDoTheWorkOnce(t *testing.T) {
	t.Parallel()
	r, first := listen(t), newStore(t, Options{})
	shared, own := noise(t, "shared", 400_000), noise(t, "own-one", 100_000)
	names := []string{push(t, r, "one:1", imageOf(t, shared, own)), push(t, r, "two:1", imageOf(t, shared))}
	r.Misbehave(faultregistry.Faults{})
	var all sync.WaitGroup
	for i := range 8 {
		s := first
		if i%2 == 1 {
			s = reopen(t, first.dir, Options{}) // as another process would
		}
		all.Go(func() {
			if _, err := s.Pull(t.Context(), names[i%3%2], PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	count := map[string]int{}
	for _, one := range r.Requests() {
		count[one.Path[strings.LastIndexByte(one.Path, '/')+1:]]++
	}
	for _, l := range []v1.Layer{shared, own} {
		if n := count[digestText(t, l)]; n != 1 {
			t.Errorf("layer %s was asked for %d times; want once", shortOf(t, l), n)
		}
	}
}

// TestWhoWaitsTakesOver: the first of two pulls is cancelled, the second one
// does what is left.
func TestWhoWaitsTakesOver(t *testing.T) {
	t.Parallel()
	r, s := listen(t), newStore(t, Options{})
	layer := noise(t, "big", 900_000)
	name := push(t, r, "app:1", imageOf(t, layer))
	r.Misbehave(faultregistry.Faults{Stall: 300_000, Only: digestText(t, layer)})
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{}, 1)
	failed := make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, name, PullOptions{Report: func(p Progress) {
			if p.Phase == Downloading {
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		}})
		failed <- err
	}()
	<-begun
	r.Misbehave(faultregistry.Faults{})
	done := make(chan error, 1)
	waits := make(chan struct{}, 1)
	go func() {
		_, err := s.Pull(t.Context(), name, PullOptions{Report: func(p Progress) {
			if p.Phase == Waiting {
				waits <- struct{}{}
			}
		}})
		done <- err
	}()
	<-waits
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled one = %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("the other one = %v", err)
	}
}

// TestATagThatMovesMakesNoMixture: between the manifest and the layers, and
// then between a pull and the use of what it brought.
func TestATagThatMovesMakesNoMixture(t *testing.T) {
	t.Parallel()
	r, s := listen(t), newStore(t, Options{})
	version := func(text string) v1.Image {
		return configured(t, func(c *v1.ConfigFile) { c.Config.Env = []string{"VERSION=" + text} }, layerOf(t, file("version", text)))
	}
	name := push(t, r, "app:1", version("one"))
	var once sync.Once
	r.Misbehave(faultregistry.Faults{Before: func(request *http.Request) {
		if request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/blobs/") {
			once.Do(func() { push(t, r, "app:1", version("two")) })
		}
	}})
	one, err := s.Pull(t.Context(), name, PullOptions{Owner: "run 1"})
	if err != nil {
		t.Fatal(err)
	}
	if content := read(t, one, "version"); content != "one" || one.Config.Env[0] != "VERSION=one" {
		t.Errorf("version %q with %q; want one and one", content, one.Config.Env)
	}
	two, err := s.Pull(t.Context(), name, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(t.Context(), func(Listed) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if read(t, one, "version") != "one" || read(t, two, "version") != "two" {
		t.Error("the versions are mixed")
	}
	byDigest, err := s.Pull(t.Context(), r.Addr()+"/app@"+one.Digest, PullOptions{})
	if err != nil || byDigest.Digest != one.Digest {
		t.Errorf("by digest: %+v, %v", byDigest, err)
	}
}

func TestStoredCredentialsAreUsed(t *testing.T) {
	t.Parallel()
	r := listen(t)
	name := push(t, r, "app:1", imageOf(t, layerOf(t, file("a", "x"))))
	r.Misbehave(faultregistry.Faults{User: "ana", Word: "open sesame"})
	s := newStore(t, Options{Keychain: keychain{auth: authn.FromConfig(authn.AuthConfig{Username: "ana", Password: "open sesame"})}})
	if _, err := s.Pull(t.Context(), name, PullOptions{}); err != nil {
		t.Error(err)
	}
	broken := newStore(t, Options{Keychain: keychain{err: errors.New("helper is gone")}})
	if _, err := broken.Pull(t.Context(), name, PullOptions{}); !IsKind(err, Unauthorized) || !strings.Contains(err.Error(), "helper is gone") {
		t.Errorf("Pull with a broken helper = %v", err)
	}
	r.Misbehave(faultregistry.Faults{})
	if _, err := broken.Pull(t.Context(), name, PullOptions{}); err != nil {
		t.Errorf("Pull of something public with a broken helper = %v", err)
	}
}

type keychain struct {
	auth authn.Authenticator
	err  error
}

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) { return k.auth, k.err }

func TestPlainHTTPIsForThisMachine(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:1": true, "127.8.9.1": true, "[::1]:5000": true,
		"10.0.0.1:5000": false, "docker.io": false, "127.0.0.1.example.com": false, "": false,
	} {
		if got := loopback(host); got != want {
			t.Errorf("loopback(%q) = %v", host, got)
		}
	}
	_, err := careful{http.DefaultTransport}.RoundTrip(&http.Request{URL: mustURL(t, "http://10.0.0.1/v2/")})
	if err == nil || !strings.Contains(err.Error(), "plain http") {
		t.Errorf("plain http to elsewhere = %v", err)
	}
}

// TestDiskFull: the store is on a file system that has no room for the layer.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1500k"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	r := listen(t)
	zeroes := layerOf(t, file("zeroes", strings.Repeat("\x00", 3_000_000))) // small to download
	big := noise(t, "big", 3_000_000)
	small := push(t, r, "small:1", imageOf(t, layerOf(t, file("a", "x"))))
	for tag, layer := range map[string]v1.Layer{"zeroes:1": zeroes, "big:1": big} {
		name := push(t, r, tag, imageOf(t, layer))
		s := reopen(t, dir, Options{})
		_, err := s.Pull(t.Context(), name, PullOptions{})
		var e *Error
		if !errors.As(err, &e) || e.Kind != DiskFull || e.Layer != shortOf(t, layer) || !errors.Is(err, syscall.ENOSPC) || e.Hint != "df -h "+dir {
			t.Errorf("Pull = %v (%+v); want disk_full with the layer", err, e)
		}
		if left := remains(t, s); slices.ContainsFunc(left, func(p string) bool {
			return !strings.HasPrefix(p, "blobs/") && !strings.HasPrefix(p, "refs/") && !strings.HasPrefix(p, "layers/")
		}) {
			t.Errorf("left behind: %q", left)
		}
		if _, err := s.Pull(t.Context(), small, PullOptions{}); err != nil {
			t.Errorf("what fits is not pulled: %v", err)
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=20m"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Pull(t.Context(), name, PullOptions{}); err != nil {
			t.Errorf("with room, the next try: %v", err)
		}
		if _, err := s.Prune(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1500k"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCompressions(t *testing.T) {
	t.Parallel()
	r, s := listen(t), newStore(t, Options{})
	plain := archive(t, file("a", strings.Repeat("content", 1000)))
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, content := range [][]byte{plain, encoder.EncodeAll(plain, nil), zipped(t, plain)} {
		name := push(t, r, fmt.Sprintf("app:%d", i), imageOf(t, blob{static.NewLayer(content, types.OCILayer), digestOf(plain)}))
		image, err := s.Pull(t.Context(), name, PullOptions{})
		if err != nil || read(t, image, "a") != strings.Repeat("content", 1000) {
			t.Errorf("compression %d: %v", i, err)
		}
		if _, err := s.Prune(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if left := remains(t, s); len(left) > 0 {
			t.Errorf("Prune left %q", left)
		}
	}
}

func TestProgressAddsUp(t *testing.T) {
	t.Parallel()
	r, s := listen(t), newStore(t, Options{})
	layers := []v1.Layer{noise(t, "one", 500_000), noise(t, "three", 200_000)}
	name := push(t, r, "app:1", imageOf(t, layers...))
	r.Misbehave(faultregistry.Faults{Rate: 2 << 20})
	last := map[string]Progress{}
	var order []Phase
	_, err := s.Pull(t.Context(), name, PullOptions{Report: func(p Progress) {
		if p.Current < last[p.Layer].Current || p.Total == 0 {
			t.Errorf("%+v after %+v", p, last[p.Layer])
		}
		last[p.Layer] = p
		if p.Layer == shortOf(t, layers[0]) && (len(order) == 0 || order[len(order)-1] != p.Phase) {
			order = append(order, p.Phase)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if size, _ := l.Size(); last[shortOf(t, l)] != (Progress{shortOf(t, l), Done, size, size, ""}) {
			t.Errorf("last of %s = %+v", shortOf(t, l), last[shortOf(t, l)])
		}
	}
	if want := []Phase{Waiting, Downloading, Unpacking, Verifying, Done}; !slices.Equal(order, want) {
		t.Errorf("phases = %v; want %v", order, want)
	}
}

func TestAHungHelperDoesNotHangACancelledPull(t *testing.T) {
	t.Parallel()
	hung := make(chan struct{})
	t.Cleanup(func() { close(hung) })
	s := newStore(t, Options{Keychain: slow{hung}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Pull(ctx, "127.0.0.1:1/app:1", PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Pull = %v", err)
	}
}

type slow struct{ until chan struct{} }

func (s slow) Resolve(authn.Resource) (authn.Authenticator, error) {
	<-s.until
	return authn.Anonymous, nil
}

func mustURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
