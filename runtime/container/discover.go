package container

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// answerTime is how long an engine may take to say that it is there.
const answerTime = 5 * time.Second

// The names of engines, as configuration and status have them.
const (
	nameAuto   = runtime.EngineAuto
	nameDocker = runtime.EngineDocker
	namePodman = runtime.EnginePodman
)

// usualPlace is the source of a place that nobody named.
const usualPlace = "usual place"

// Discover looks for engines as New does and says what it found, the one that
// would be used marked. want is "auto", "docker" or "podman". env is os.Getenv
// or what stands for it. It takes five seconds at most.
func Discover(ctx context.Context, env func(string) string, want string) []runtime.FoundEngine {
	places := placesFor(env, want)
	found := make([]runtime.FoundEngine, len(places))
	var asked sync.WaitGroup
	for i, p := range places {
		asked.Go(func() {
			e, err := dial(ctx, p, want)
			found[i] = runtime.FoundEngine{Engine: p.engine, Host: p.host, Source: p.source, Err: err, Named: p.source != usualPlace}
			if err == nil {
				found[i].Engine, found[i].Version = e.name, e.version
				e.close()
				return
			}
			_, missing := os.Lstat(strings.TrimPrefix(p.host, "unix://"))
			found[i].Absent = p.source == usualPlace && errors.Is(missing, fs.ErrNotExist)
		})
	}
	asked.Wait()
	used := false
	for i := range found {
		f := &found[i]
		switch {
		case f.Err != nil:
			f.Why = f.Err.Error()
		case used:
			f.Why = "answers, but another one comes first"
		default:
			f.Used, used = true, true
			f.Why = "the first that answers: " + f.Source
		}
	}
	return found
}

// Named reports whether the user has named an engine, by DOCKER_HOST or a docker
// context.
func Named(env func(string) string) bool {
	places := placesFor(env, nameAuto)
	return len(places) > 0 && places[0].source != usualPlace
}

// place is where an engine may be.
type place struct {
	engine string // what to expect there
	host   string
	source string
	tls    tlsFiles
}

type tlsFiles struct{ ca, cert, key string }

func (t tlsFiles) set() bool { return t.ca != "" || t.cert != "" }

// placesFor lists where to look, in order. A place that the user named, by a
// variable or a docker context, is the only one: services must not end up in
// another engine because the chosen one is down.
func placesFor(env func(string) string, want string) []place {
	if host := env("CONTAINER_HOST"); host != "" && want == namePodman {
		return []place{{engine: namePodman, host: host, source: "CONTAINER_HOST"}}
	}
	if host := env("DOCKER_HOST"); host != "" {
		p := place{engine: engineOf(host), host: host, source: "DOCKER_HOST"}
		if dir := env("DOCKER_CERT_PATH"); dir != "" {
			p.tls = tlsIn(dir)
		}
		return []place{p}
	}
	if want != namePodman {
		if p, ok := contextPlace(env); ok {
			return []place{p}
		}
	}
	return usualPlaces(env, want)
}

func engineOf(host string) string {
	if strings.Contains(host, namePodman) {
		return namePodman
	}
	return nameDocker
}

func usualPlaces(env func(string) string, want string) []place {
	home, run := env("HOME"), env("XDG_RUNTIME_DIR")
	candidates := []struct{ engine, dir, rest string }{
		{nameDocker, "/", "var/run/docker.sock"},
		{nameDocker, run, "docker.sock"},
		{nameDocker, home, ".docker/run/docker.sock"},
		{nameDocker, home, ".docker/desktop/docker.sock"},
		{nameDocker, home, ".colima/default/docker.sock"},
		{nameDocker, home, ".orbstack/run/docker.sock"},
		{nameDocker, home, ".rd/docker.sock"},
		{namePodman, run, "podman/podman.sock"},
		{namePodman, "/", "run/podman/podman.sock"},
	}
	var places []place
	seen := map[string]bool{}
	for _, c := range candidates {
		if c.dir == "" || want != nameAuto && want != c.engine {
			continue
		}
		path := filepath.Join(c.dir, c.rest)
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			real = path
		}
		if seen[real] {
			continue
		}
		seen[real] = true
		places = append(places, place{engine: c.engine, host: "unix://" + path, source: usualPlace})
	}
	return places
}

// contextPlace reads the docker context the user has chosen; ok is false for
// the default one and when there is none.
func contextPlace(env func(string) string) (p place, ok bool) {
	dir := dockerConfigDir(env)
	name := env("DOCKER_CONTEXT")
	if name == "" {
		var config struct{ CurrentContext string }
		if content, err := os.ReadFile(filepath.Join(dir, "config.json")); err == nil {
			_ = json.Unmarshal(content, &config) // docker itself complains of a broken one
		}
		name = config.CurrentContext
	}
	if name == "" || name == "default" {
		return place{}, false
	}
	source := "docker context " + name
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	var meta struct {
		Endpoints map[string]struct{ Host string }
	}
	content, err := os.ReadFile(filepath.Join(dir, "contexts", "meta", id, "meta.json"))
	if err == nil {
		err = json.Unmarshal(content, &meta)
	}
	if err != nil || meta.Endpoints[nameDocker].Host == "" {
		return place{engine: nameDocker, source: source}, true
	}
	host := meta.Endpoints[nameDocker].Host
	p = place{engine: engineOf(host), host: host, source: source}
	tls := filepath.Join(dir, "contexts", "tls", id, nameDocker)
	if _, err := os.Stat(tls); err == nil {
		p.tls = tlsIn(tls)
	}
	return p, true
}

func dockerConfigDir(env func(string) string) string {
	return cmp.Or(env("DOCKER_CONFIG"), filepath.Join(env("HOME"), ".docker"))
}

func tlsIn(dir string) tlsFiles {
	return tlsFiles{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

// dial connects to one place and asks who is there. It returns within
// answerTime.
func dial(ctx context.Context, p place, want string) (*engine, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, errHangs)
	defer cancel()
	if err := reachable(ctx, p); err != nil {
		return nil, err
	}
	cli, err := newClient(p)
	if err != nil {
		return nil, unavailable(p, "cannot be used: "+err.Error(), hintHost(p))
	}
	e, err := greet(ctx, cli, p)
	if err == nil && want != nameAuto && want != e.name {
		err = unavailable(p, fmt.Sprintf("is %s, and %s is wanted", e.name, want), fmt.Sprintf("engine = %q in [project] of locald.toml", e.name))
	}
	if err != nil {
		_ = cli.Close()
		return nil, err
	}
	return e, nil
}

func newClient(p place) (*client.Client, error) {
	options := []client.Opt{client.WithHost(p.host), client.WithUserAgent("locald")}
	if p.tls.set() {
		// The host must come first: it makes the transport that TLS is set on.
		options = append(options, client.WithTLSClientConfig(p.tls.ca, p.tls.cert, p.tls.key))
	}
	return client.New(options...)
}

// greet negotiates the version of the API and asks for the engine's name.
func greet(ctx context.Context, cli *client.Client, p place) (*engine, error) {
	pong, err := cli.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil {
		return nil, silent(ctx, p, err)
	}
	if version, err := podmanVersion(ctx, cli); err != nil {
		return nil, silent(ctx, p, err)
	} else if version != "" {
		return &engine{
			cli: cli, place: p, name: namePodman, version: version, arch: goruntime.GOARCH,
			dialect: dialects[namePodman], rootless: ofAUser(p.host),
		}, nil
	}
	version, err := cli.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return nil, silent(ctx, p, err)
	}
	e := &engine{
		cli: cli, place: p, name: nameDocker, version: version.Version, arch: version.Arch,
		dialect: dialects[nameDocker],
	}
	if pong.BuilderVersion != "" {
		e.dialect.builder = pong.BuilderVersion // an older one does not say
	}
	return e, nil
}

func silent(ctx context.Context, p place, err error) error {
	if errors.Is(context.Cause(ctx), errHangs) {
		return unavailable(p, fmt.Sprintf("hangs: %s did not answer within %s", p.engine, answerTime), hintRestart(p))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return unavailable(p, "does not answer as an engine: "+err.Error(), hintRestart(p))
}

// reachable looks at the address before the client does, because the three
// ways a socket can fail have three remedies.
func reachable(ctx context.Context, p place) error {
	if p.host == "" {
		return unavailable(p, "has no address", "docker context ls")
	}
	u, err := url.Parse(p.host)
	if err != nil {
		return unavailable(p, "is not an address: "+err.Error(), "export DOCKER_HOST=unix:///var/run/docker.sock")
	}
	switch u.Scheme {
	case "unix":
		return dialable(ctx, p, "unix", u.Path)
	case "tcp", "http", "https":
		if !p.tls.set() && !loopback(u.Hostname()) {
			return unavailable(p, "would be reached over the network without TLS", "export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=~/.docker")
		}
		return dialable(ctx, p, "tcp", u.Host)
	case "npipe":
		return nil
	}
	return unavailable(p, fmt.Sprintf("has the scheme %q, which locald does not speak", u.Scheme),
		"ssh -fNL /tmp/docker.sock:/var/run/docker.sock HOST, and export DOCKER_HOST=unix:///tmp/docker.sock")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func dialable(ctx context.Context, p place, network, address string) error {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	switch {
	case err == nil:
		_ = c.Close()
		return nil
	case errors.Is(err, fs.ErrNotExist):
		what := "is not installed or not running"
		if _, err := exec.LookPath(p.engine); err == nil && p.engine == namePodman {
			what = "is installed, and its service is not running"
		}
		return unavailable(p, what+": there is no "+address, hintInstall(p))
	case errors.Is(err, fs.ErrPermission):
		return unavailable(p, fmt.Sprintf("refuses you: no permission to open %s", address), hintPermission(p))
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTSOCK):
		return unavailable(p, fmt.Sprintf("is not running: nobody answers at %s", address), hintRestart(p))
	case errors.Is(context.Cause(ctx), errHangs), errors.Is(err, syscall.EAGAIN):
		// EAGAIN is a Unix socket whose queue is full, because nobody accepts.
		return unavailable(p, fmt.Sprintf("hangs: %s did not answer within %s", p.engine, answerTime), hintRestart(p))
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return unavailable(p, "cannot be reached: "+err.Error(), hintHost(p))
}

// unavailable says what is the matter with a place, in the error everybody
// can match.
func unavailable(p place, what, hint string) error {
	where := p.engine
	if p.source != usualPlace {
		where = fmt.Sprintf("%s (%s)", p.engine, strings.TrimSuffix(p.source+" "+p.host, " "))
	}
	return &runtime.Fault{Code: codeUnavailable, Hint: hint, Err: kind{where + " " + what, runtime.ErrUnavailable}}
}

// kind is an error that says enough by itself, of a kind that callers match.
type kind struct {
	text string
	kind error
}

func (k kind) Error() string { return k.text }
func (k kind) Unwrap() error { return k.kind }

const codeUnavailable = "engine_unavailable"

func hintInstall(p place) string {
	switch {
	case p.source == "DOCKER_HOST":
		return "unset DOCKER_HOST; locald server restart"
	case strings.HasPrefix(p.source, "docker context"):
		return "docker context use default"
	case p.engine == namePodman:
		if _, err := exec.LookPath(namePodman); err == nil {
			return hintService(p, "start")
		}
		if goruntime.GOOS == "darwin" {
			return "brew install podman; podman machine init; podman machine start"
		}
		return "sudo apt-get install podman"
	case goruntime.GOOS == "darwin":
		return "brew install --cask docker, and open -a Docker"
	}
	return "install Docker: sudo apt-get install docker.io, or https://docs.docker.com/engine/install"
}

// hintService is how the Podman service at a place is brought about.
func hintService(p place, verb string) string {
	path := strings.TrimPrefix(p.host, "unix://")
	switch {
	case goruntime.GOOS == "darwin":
		return "podman machine start"
	case noSystemd() || filepath.Base(path) != "podman.sock" || filepath.Base(filepath.Dir(path)) != "podman":
		return "podman system service --time=0 " + p.host + " &"
	case filepath.Dir(path) == "/run/podman":
		return "sudo systemctl " + verb + " podman.socket"
	}
	return "systemctl --user " + verb + " podman.socket"
}

func hintPermission(p place) string {
	if p.engine == namePodman {
		return "systemctl --user start podman.socket"
	}
	return "sudo usermod -aG docker $USER, then log in again"
}

func hintRestart(p place) string {
	switch {
	case p.engine == namePodman:
		return hintService(p, "restart")
	case goruntime.GOOS == "darwin":
		return "open -a Docker"
	}
	return "sudo systemctl restart docker"
}

func hintHost(p place) string {
	if p.source == "DOCKER_HOST" {
		return "unset DOCKER_HOST; locald server restart"
	}
	return "docker context ls"
}

// find returns the first engine that answers, in the order of places, or the
// error that says most about why there is none.
func find(ctx context.Context, env func(string) string, want string) (*engine, error) {
	if want != nameAuto && want != nameDocker && want != namePodman {
		return nil, unavailable(place{engine: want, source: usualPlace}, "is an engine that locald does not speak to", `engine = "auto" in [project] of locald.toml`)
	}
	places := placesFor(env, want)
	engines, errs := make([]*engine, len(places)), make([]error, len(places))
	var asked sync.WaitGroup
	for i, p := range places {
		asked.Go(func() { engines[i], errs[i] = dial(ctx, p, want) })
	}
	asked.Wait()
	var first *engine
	for _, e := range engines {
		switch {
		case e == nil:
		case first == nil:
			first = e
		default:
			e.close()
		}
	}
	if first != nil {
		return first, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, worst(places, errs)
}

// worst chooses among failures: that of a socket which exists, before that of
// one which does not.
func worst(places []place, errs []error) error {
	for i, p := range places {
		path, isUnix := strings.CutPrefix(p.host, "unix://")
		if _, err := os.Lstat(path); isUnix && err == nil {
			return errs[i]
		}
	}
	if len(errs) == 0 {
		return unavailable(place{engine: nameDocker, source: usualPlace}, "is not installed", hintInstall(place{engine: nameDocker}))
	}
	return errs[0]
}
