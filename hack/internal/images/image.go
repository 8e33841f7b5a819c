package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ErrNoPostgres says that this machine has no Debian package of Postgres to
// build an image from.
var ErrNoPostgres = errors.New("no Postgres in /usr/lib/postgresql; apt-get install postgresql")

// Image is one built image and the names it goes by.
type Image struct {
	Tags  []string
	Image v1.Image
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// shellPrograms is what a test script can use, besides what dash itself has.
var shellPrograms = []string{
	"dash", "basename", "cat", "chmod", "cp", "cut", "date", "dd", "dirname", "echo", "env", "expr", "false", "grep", "head", "hostname", "id",
	"ln", "locale", "ls", "mkdir", "mkfifo", "mv", "nohup", "nproc", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq",
	"setsid", "sleep", "sort", "stat", "tail", "tee", "test", "timeout", "touch", "tr", "true", "tty", "uname", "wc", "yes",
}

// base is a small Debian: a shell, the programs a script uses, and the files
// that name users.
func base() (layer, error) {
	l := layer{}
	for _, dir := range []string{"bin", "lib", "lib64", "sbin"} {
		l.link(dir, "usr/"+dir)
		l.dir("usr/"+dir, 0o755, 0)
	}
	if err := l.programs(shellPrograms...); err != nil {
		return nil, err
	}
	l.link("usr/bin/sh", "dash")
	l.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
	l.text("etc/group", "root:x:0:\npostgres:x:999:\nnogroup:x:65534:\n")
	l.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
	for _, dir := range []string{"proc", "sys", "dev", "root", "var", "run"} {
		l.dir(dir, 0o755, 0)
	}
	l.dir("tmp", 0o1777, 0)
	l.link("var/run", "/run")
	return l, nil
}

// Build makes every image. work is a directory for programs that are built on
// the way. Without a Postgres on the machine the others are returned together
// with ErrNoPostgres.
func Build(ctx context.Context, work string) ([]Image, error) {
	probe, err := buildProbe(ctx, work)
	if err != nil {
		return nil, err
	}
	ground, err := base()
	if err != nil {
		return nil, err
	}
	shellLayer, err := ground.build()
	if err != nil {
		return nil, err
	}
	shell, err := assemble(v1.Config{Env: []string{defaultPath}, Cmd: []string{"sh"}}, shellLayer)
	if err != nil {
		return nil, err
	}
	built := append(probe, Image{[]string{"locald-test/shell:1"}, shell})
	postgres, err := buildPostgres(ctx, work, shellLayer)
	if err != nil {
		return built, err
	}
	return append(built, postgres), nil
}

func buildProbe(ctx context.Context, work string) ([]Image, error) {
	program, err := compile(ctx, work, "probe")
	if err != nil {
		return nil, err
	}
	l := layer{}
	if err := l.copy("probe", program); err != nil {
		return nil, err
	}
	l.dir("tmp", 0o1777, 0)
	only, err := l.build()
	if err != nil {
		return nil, err
	}
	plain, err := assemble(v1.Config{Env: []string{defaultPath}, Entrypoint: []string{"/probe"}}, only)
	if err != nil {
		return nil, err
	}
	checked, err := assemble(v1.Config{
		Env:        []string{defaultPath},
		Entrypoint: []string{"/probe"},
		Healthcheck: &v1.HealthConfig{
			Test: []string{"CMD", "/probe", "exists=/tmp/healthy"}, Interval: 200 * time.Millisecond, Timeout: 5 * time.Second, Retries: 2,
		},
	}, only)
	if err != nil {
		return nil, err
	}
	return []Image{{[]string{"locald-test/probe:1"}, plain}, {[]string{"locald-test/healthy:1"}, checked}}, nil
}

func buildPostgres(ctx context.Context, work string, ground v1.Layer) (Image, error) {
	home, major, err := postgresHome()
	if err != nil {
		return Image{}, err
	}
	server, share, top := layer{}, layer{}, layer{}
	// LLVM alone is larger than all the rest, and only speeds up long queries.
	if err := server.tree(home, func(p string) bool {
		return strings.Contains(p, "llvmjit") || slices.Contains([]string{"bitcode", "pgxs"}, filepath.Base(p))
	}); err != nil {
		return Image{}, err
	}
	if err := server.libraries(sources(server)); err != nil {
		return Image{}, err
	}
	if err := share.tree("/usr/share/postgresql/"+major, func(p string) bool { return filepath.Base(p) == "man" }); err != nil {
		return Image{}, err
	}
	for _, dir := range []string{"/usr/share/zoneinfo", "/usr/lib/locale/C.utf8"} {
		skip := func(p string) bool { return slices.Contains([]string{"right", "posix"}, filepath.Base(p)) }
		if err := share.tree(dir, skip); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Image{}, err
		}
	}
	entrypoint, err := compile(ctx, work, "entrypoint")
	if err != nil {
		return Image{}, err
	}
	if err := top.copy("usr/local/bin/docker-entrypoint", entrypoint); err != nil {
		return Image{}, err
	}
	top.dir("run/postgresql", 0o3775, 999)
	top.dir("var/lib/postgresql", 0o755, 999)
	top.dir("var/lib/postgresql/data", 0o700, 999)
	top.dir("docker-entrypoint-initdb.d", 0o755, 0)

	layers := []v1.Layer{ground}
	for _, l := range []layer{server, share, top} {
		built, err := l.build()
		if err != nil {
			return Image{}, err
		}
		layers = append(layers, built)
	}
	image, err := assemble(v1.Config{
		Env:          []string{defaultPath + ":" + home + "/bin", "LANG=C.UTF-8", "PG_MAJOR=" + major, "PGDATA=/var/lib/postgresql/data"},
		Entrypoint:   []string{"docker-entrypoint"},
		Cmd:          []string{"postgres"},
		ExposedPorts: map[string]struct{}{"5432/tcp": {}},
		Volumes:      map[string]struct{}{"/var/lib/postgresql/data": {}},
		StopSignal:   "SIGINT",
	}, layers...)
	return Image{[]string{"locald-test/postgres:" + major, "postgres:" + major}, image}, err
}

func sources(l layer) []string {
	var paths []string
	for _, f := range l {
		if f.source != "" {
			paths = append(paths, f.source)
		}
	}
	return paths
}

// postgresHome is where Debian keeps the newest server of this machine.
func postgresHome() (home, major string, err error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", "", ErrNoPostgres
	}
	slices.Sort(found)
	home = filepath.Dir(filepath.Dir(found[len(found)-1]))
	return home, filepath.Base(home), nil
}

// compile builds one of the programs under hack/testimages, static and for
// this machine's processor.
func compile(ctx context.Context, work, name string) (string, error) {
	out := filepath.Join(work, name)
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", out, "github.com/locald/locald/hack/testimages/"+name)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if output, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, output)
	}
	return out, nil
}

func assemble(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.DockerManifestSchema2), types.DockerConfigJSON)
	image, err := mutate.AppendLayers(image, layers...)
	if err != nil {
		return nil, err
	}
	whole, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	whole = whole.DeepCopy()
	whole.Architecture, whole.OS = goruntime.GOARCH, "linux"
	whole.Created = v1.Time{Time: time.Unix(0, 0)}
	whole.Config = config
	return mutate.ConfigFile(image, whole)
}

// Program is an image of one static program, its entrypoint, and nothing else.
func Program(path string) (v1.Image, error) {
	l := layer{}
	name := filepath.Base(path)
	if err := l.copy(name, path); err != nil {
		return nil, err
	}
	only, err := l.build()
	if err != nil {
		return nil, err
	}
	return assemble(v1.Config{Env: []string{defaultPath}, Entrypoint: []string{"/" + name}}, only)
}
