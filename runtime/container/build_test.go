package container_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/locald/locald/hack/faultengine"
	"github.com/locald/locald/internal/build"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/container"
)

// eachBuilder runs a test with every builder of the engine: of Docker with
// BuildKit, and with the older one, as which Podman's speaks.
func eachBuilder(t *testing.T, test func(t *testing.T, b *bench, p *faultengine.Proxy)) {
	t.Helper()
	for _, older := range []bool{false, true} {
		if engineName() == "podman" && !older {
			continue // it has one builder
		}
		t.Run(map[bool]string{false: "BuildKit", true: "older"}[older], func(t *testing.T) {
			t.Parallel()
			p := newProxy(t)
			if older {
				p.On("", "/_ping", -1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
					w.Header().Set("Builder-Version", "1")
					forward.ServeHTTP(w, r)
				})
			}
			test(t, newBench(t, container.Options{Getenv: p.Env}), p)
		})
	}
}

// sources writes files into a new directory.
func sources(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// building is a spec of an image that is built from dir, as its files are now.
func (b *bench) building(t *testing.T, dir string) runtime.Spec {
	t.Helper()
	spec := b.probe(t)
	made := &runtime.Build{Context: dir, Dockerfile: filepath.Join(dir, "Dockerfile")}
	files, err := build.Open(made.Context, made.Dockerfile)
	if err != nil {
		t.Fatal(err)
	}
	if made.Digest, err = files.Digest(t.Context()); err != nil {
		t.Fatal(err)
	}
	spec.Image.Name, spec.Image.Build = "locald-test-built/"+b.project.ID+":web", made
	return spec
}

// prints prepares a spec and returns what its container prints.
func (b *bench) prints(t *testing.T, spec runtime.Spec) string {
	t.Helper()
	b.prepare(t, spec)
	stdout, exit := b.done(t, spec)
	if exit.Code != 0 {
		t.Errorf("%v", exit)
	}
	return stdout
}

func (b *bench) prepare(t *testing.T, spec runtime.Spec) {
	t.Helper()
	if err := b.Prepare(t.Context(), spec, func(runtime.Progress) {}); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
}

// counted counts requests to build.
func counted(p *faultengine.Proxy) *atomic.Int64 {
	n := new(atomic.Int64)
	p.On("POST", "/build", -1, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		n.Add(1)
		forward.ServeHTTP(w, r)
	})
	return n
}

func TestAnImageIsBuiltOnceAndAgainWhenItsFilesHaveChanged(t *testing.T) {
	t.Parallel()
	eachBuilder(t, func(t *testing.T, b *bench, p *faultengine.Proxy) {
		requests := counted(p)
		dir := sources(t, map[string]string{
			"Dockerfile": "FROM " + shellImage + "\nCOPY unique said ./\nRUN echo built\nCMD [\"cat\", \"said\"]\n", "said": "one\n", "unique": b.project.ID,
		})
		first := b.building(t, dir)
		var seen steps
		if err := b.Prepare(t.Context(), first, seen.report); err != nil {
			t.Fatal(err)
		}
		for _, step := range []string{"building " + first.Image.Name + ": sending the context", "building " + first.Image.Name + ": [2/", "] COPY unique said ./", "] RUN echo built"} {
			if !strings.Contains(seen.text(), step) {
				t.Errorf("progress %s; want %s", seen.text(), step)
			}
		}
		if got := b.prints(t, first); got != "one\n" || requests.Load() != 1 {
			t.Errorf("it printed %q after %d builds; want one", got, requests.Load())
		}
		labels := docker(t, "image", "inspect", "-f", `{{index .Config.Labels "dev.locald.built.project"}} {{index .Config.Labels "dev.locald.built.service"}} {{index .Config.Labels "dev.locald.instance"}}`, first.Image.Name)
		if labels != b.project.ID+" web" {
			t.Errorf("labels %q; want the project and the service, and no instance, which others' containers would inherit", labels)
		}

		if err := os.WriteFile(filepath.Join(dir, "said"), []byte("two, and longer\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := b.prints(t, b.building(t, dir)); got != "two, and longer\n" || requests.Load() != 2 {
			t.Errorf("it printed %q after %d builds; want the second", got, requests.Load())
		}

		always := b.building(t, dir)
		always.Image.Pull = runtime.PullAlways
		always.Image.Build.Dockerfile = filepath.Join(sources(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY said /\n"}), "Dockerfile")
		b.prepare(t, always)
		if requests.Load() != 3 {
			t.Errorf("%d builds; want one more with \"always\"", requests.Load())
		}
	})
}

// TestEarlierImagesThatNobodyUsesAreRemoved runs beside no other test: Podman
// gives up when an image goes while it looks at all of them.
func TestEarlierImagesThatNobodyUsesAreRemoved(t *testing.T) {
	eachBuilder(t, func(t *testing.T, b *bench, _ *faultengine.Proxy) {
		dir := sources(t, map[string]string{"Dockerfile": "FROM " + shellImage + "\nCOPY n /n\nCMD [\"sh\", \"-c\", \"cat /n; exec sleep 1000\"]\n", "n": "1"})
		running := b.building(t, dir)
		b.prepare(t, running)
		used := docker(t, "image", "inspect", "-f", "{{.Id}}", running.Image.Name)
		b.up(t, running)
		for n := 2; n < 4; n++ {
			if err := os.WriteFile(filepath.Join(dir, "n"), []byte(strings.Repeat("x", n)), 0o600); err != nil {
				t.Fatal(err)
			}
			b.prepare(t, b.building(t, dir))
		}
		named := docker(t, "image", "inspect", "-f", "{{.Id}}", running.Image.Name)
		got := docker(t, "image", "ls", "-q", "--no-trunc", "--filter", "label=dev.locald.built.instance="+string(b.owner))
		if got != named+"\n"+used && got != used+"\n"+named {
			t.Errorf("images %q; want the one with the name, %s, and the one that a container uses, %s", got, named, used)
		}
	})
}

func TestABuildHasItsArgsItsTargetAndNothingThatIsExcluded(t *testing.T) {
	t.Parallel()
	eachBuilder(t, func(t *testing.T, b *bench, _ *faultengine.Proxy) {
		dir := sources(t, map[string]string{
			".dockerignore": "*.log\nnode_modules\n", "a.log": "", "node_modules/x": "", "src/run": "",
			"Dockerfile": "FROM " + shellImage + " AS first\nARG WORD=none\nARG OTHER=none\nWORKDIR /app\nCOPY . .\nRUN echo $WORD $OTHER >word\nCMD [\"sh\", \"-c\", \"cat word; ls; ls src\"]\nFROM first\nRUN exit 1\n",
		})
		spec := b.building(t, dir)
		spec.Image.Build.Target, spec.Image.Build.Args = "first", []string{"WORD=a=b c", "OTHER="}
		if got := b.prints(t, spec); got != "a=b c\nDockerfile\nsrc\nword\nrun\n" {
			t.Errorf("it printed %q", got)
		}
		again := spec
		image, made := *spec.Image, *spec.Image.Build
		again.Run, again.Log, again.Image, image.Build, made.Args = spec.Run+1, t.TempDir(), &image, &made, []string{"WORD=other"}
		if got := b.prints(t, again); !strings.HasPrefix(got, "other none\n") {
			t.Errorf("with another arg it printed %q", got)
		}
	})
}

func TestEachWayABuildFailsHasItsOwnMessage(t *testing.T) {
	t.Parallel()
	eachBuilder(t, func(t *testing.T, b *bench, _ *faultengine.Proxy) {
		nobody, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = nobody.Close()
		registry, _ := newRegistry(t)
		for _, test := range []struct {
			name, dockerfile string
			want             []string
			hint             string
			passing          bool
		}{
			{"a step", "FROM " + shellImage + "\nRUN echo first >&2; echo the reason >&2; exit 3\n", []string{"] RUN echo first >&2; echo the reason >&2; exit 3: ", "3", ": first / the reason"}, "locald logs web", false},
			{"an instruction", "FROM " + shellImage + "\nRUNN x\n", []string{"RUNN"}, "locald logs web", false},
			{"a file", "FROM " + shellImage + "\nCOPY missing /\n", []string{"missing", "COPY"}, "locald logs web", false},
			{"a base image that is not there", "FROM " + registry.Addr() + "/none:1\n", []string{"image " + registry.Addr() + "/none:1: it does not exist on " + registry.Addr()}, engineName() + " pull " + registry.Addr() + "/none:1", false},
			{"a registry", "FROM " + nobody.Addr().String() + "/none:1\n", []string{"image " + nobody.Addr().String() + "/none:1: " + nobody.Addr().String() + " cannot be reached"}, "curl -I", true},
		} {
			t.Run(test.name, func(t *testing.T) {
				err := b.Prepare(t.Context(), b.building(t, sources(t, map[string]string{"Dockerfile": test.dockerfile})), func(runtime.Progress) {})
				fault, ok := errors.AsType[*runtime.Fault](err)
				if !ok || fault.Code != "image_pull" || !strings.HasPrefix(fault.Hint, test.hint) || errors.Is(err, runtime.ErrInvalid) == test.passing || errors.Is(err, runtime.ErrUnavailable) {
					t.Fatalf("Prepare = %v, fault %+v", err, fault)
				}
				for _, part := range test.want {
					if !strings.HasPrefix(err.Error(), "build: ") || !strings.Contains(err.Error(), part) {
						t.Errorf("Prepare = %v; want %q", err, part)
					}
				}
			})
		}
	})
}

func TestWhatABuildWritesIsInTheLog(t *testing.T) {
	t.Parallel()
	eachBuilder(t, func(t *testing.T, b *bench, p *faultengine.Proxy) {
		var notes []string
		b.Runtime = open(t, container.Options{Owner: b.owner, Getenv: p.Env, Note: func(_ string, run int, text string) { notes = append(notes, fmt.Sprint(run, " ", text)) }})
		b.prepare(t, b.building(t, sources(t, map[string]string{
			"Dockerfile": "FROM " + shellImage + "\nCOPY unique /\nRUN echo one; echo two\n", "unique": b.project.ID,
		})))
		text := strings.Join(notes, "\n")
		at := 0
		for _, want := range []string{"1 build: [2/", "] COPY unique /", "1 build: [3/", "] RUN echo one", "1 build: one", "1 build: two"} {
			next := strings.Index(text[at:], want)
			if next < 0 {
				t.Fatalf("notes:\n%s\nwant %q after what is before it", text, want)
			}
			at += next
		}
	})
}

func TestABuildThatIsCancelledEnds(t *testing.T) {
	t.Parallel()
	eachBuilder(t, func(t *testing.T, b *bench, _ *faultengine.Proxy) {
		seconds := fmt.Sprintf("10000.%d", time.Now().UnixNano())
		if engineName() == "podman" { // which builds a step to its end
			seconds = strings.TrimPrefix(seconds, "100")
		}
		spec := b.building(t, sources(t, map[string]string{"Dockerfile": "FROM " + shellImage + "\nRUN exec sleep " + seconds + "\n"}))
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- b.Prepare(ctx, spec, func(runtime.Progress) {}) }()
		until(t, "the step runs", func() bool { return runs("sleep", seconds) })
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) || errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("Prepare = %v; want that it was cancelled", err)
		}
		until(t, "the step has ended", func() bool { return !runs("sleep", seconds) })
	})
}

// runs reports whether a process with these arguments is on this machine.
func runs(argv ...string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if content, err := os.ReadFile(path); err == nil && string(content) == strings.Join(argv, "\x00")+"\x00" {
			return true
		}
	}
	return false
}

func TestTwoWhoPrepareTheSameBuildOnce(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	b := newBench(t, container.Options{Getenv: p.Env})
	requests := counted(p)
	spec := b.building(t, sources(t, map[string]string{"Dockerfile": "FROM " + shellImage + "\nCOPY unique /\n", "unique": b.project.ID}))
	results := make(chan error, 2)
	for range 2 {
		go func() { results <- b.Prepare(t.Context(), spec, func(runtime.Progress) {}) }()
	}
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d builds; want 1", n)
	}
}

func TestAnEngineThatGoesAwayInABuildIsNotTheDockerfilesFault(t *testing.T) {
	t.Parallel()
	eachBuilder(t, func(t *testing.T, b *bench, p *faultengine.Proxy) {
		spec := b.building(t, sources(t, map[string]string{"Dockerfile": "FROM " + shellImage + "\nRUN sleep 100\n"}))
		step := make(chan struct{}, 100)
		result := make(chan error, 1)
		go func() {
			result <- b.Prepare(t.Context(), spec, func(r runtime.Progress) {
				if strings.Contains(r.Step, "RUN") {
					step <- struct{}{}
				}
			})
		}()
		<-step
		p.Vanish()
		if err := <-result; !errors.Is(err, runtime.ErrUnavailable) || errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("Prepare = %v; want ErrUnavailable", err)
		}
		appear(t, p)
	})
}

// TestABaseImageIsTakenFromItsRegistry takes it from one that wants a token,
// which it gives to everybody, or to whom it knows.
func TestABaseImageIsTakenFromItsRegistry(t *testing.T) {
	needEngine(t)
	const login = "ana:open sesame"
	public, private := newTokenRegistry(t, ""), newTokenRegistry(t, login)
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)
	stored := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, private, base64.StdEncoding.EncodeToString([]byte(login)))
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(stored), 0o600); err != nil {
		t.Fatal(err)
	}
	eachBuilder(t, func(t *testing.T, b *bench, _ *faultengine.Proxy) {
		for _, host := range []string{public, private} {
			b.prepare(t, b.building(t, sources(t, map[string]string{"Dockerfile": "FROM " + host + "/base:1\nCOPY unique /\n", "unique": b.project.ID})))
		}
	})
}

func TestABaseImageThatNeedsALoginSaysSo(t *testing.T) {
	t.Parallel()
	eachBuilder(t, func(t *testing.T, b *bench, _ *faultengine.Proxy) {
		host := newTokenRegistry(t, "ana:open sesame")
		err := b.Prepare(t.Context(), b.building(t, sources(t, map[string]string{"Dockerfile": "FROM " + host + "/base:1\n"})), func(runtime.Progress) {})
		fault, ok := errors.AsType[*runtime.Fault](err)
		if !ok || fault.Code != "image_pull" || fault.Hint != engineName()+" login "+host || !strings.Contains(err.Error(), host+"/base:1") {
			t.Errorf("without a login: %v, %+v; want to log in", err, fault)
		}
	})
}

// newTokenRegistry is a registry with an image, and with the kind of tokens that
// Docker Hub gives. login is who gets one; empty is everybody.
func newTokenRegistry(t *testing.T, login string) (host string) {
	t.Helper()
	const token = "a-token"
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, word, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/token" && (login == "" || r.FormValue("password") != "" && login == r.FormValue("username")+":"+r.FormValue("password") || login == user+":"+word):
			_, _ = w.Write([]byte(`{"token":"` + token + `","access_token":"` + token + `"}`))
		case r.URL.Path == "/token":
			http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
		case r.Header.Get("Authorization") != "Bearer "+token && r.Header.Get("Push") == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
		default:
			store.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	reference, err := name.ParseReference(host + "/base:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference, newImage(t), remote.WithTransport(pushing{})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if docker(t, "images", "-q", host+"/base:1") != "" {
			docker(t, "rmi", host+"/base:1")
		}
	})
	return host
}

// pushing marks requests as those that fill the registry.
type pushing struct{}

func (pushing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Push", "yes")
	return http.DefaultTransport.RoundTrip(r)
}
