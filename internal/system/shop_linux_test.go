package system

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/locald/locald/hack/containerd"
	"github.com/locald/locald/hack/podman"
	"github.com/locald/locald/ipc"
)

// served is a registry with the images that hack/testimages makes, so that what
// the engines do is pull.
var served = sync.OnceValues(func() (host string, err error) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	host = strings.TrimPrefix(server.URL, "http://")
	out, err := exec.Command("go", "run", "../../hack/testimages", "-load=false", "-push", host).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return host, nil
})

// web is the program of examples/shop.
var web = sync.OnceValues(func() (path string, err error) {
	path = filepath.Join(built, "web")
	return path, build(path, "../../examples/shop/web")
})

// machine is one way to have containers.
type machine struct {
	name   string
	engine string
	// open has the engine at hand while the test runs; what it returns removes a
	// service's container behind locald's back.
	open func(*testing.T, *sandbox) func(ipc.Service)
	user bool // an ordinary one
}

var machines = []machine{
	{name: "docker", engine: "docker", open: onDocker},
	{name: "podman", engine: "podman", open: onPodman},
	{name: "containerd", engine: "containerd", open: onContainerd},
	{name: "builtin", engine: "builtin", open: onBuiltin},
	{name: "builtin as an ordinary user", engine: "builtin", open: onBuiltin, user: true},
}

func onDocker(t *testing.T, s *sandbox) func(ipc.Service) {
	needEngine(t)
	return func(svc ipc.Service) { s.docker("rm", "-f", svc.ContainerID) }
}

func onPodman(t *testing.T, s *sandbox) func(ipc.Service) {
	if reason := podman.Missing(); reason != "" {
		missing(t, "podman", reason)
	}
	service, err := podman.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.last = append(s.last, func() error { return service.Close(context.WithoutCancel(t.Context())) })
	s.environ = append(s.environ, "CONTAINER_HOST="+service.Host())
	return func(svc ipc.Service) { s.docker("-H", service.Host(), "rm", "-f", svc.ContainerID) }
}

func onContainerd(t *testing.T, s *sandbox) func(ipc.Service) {
	server, err := containerd.New()
	if err != nil {
		missing(t, "containerd", err.Error())
	}
	s.last = append(s.last, server.Close)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	s.environ = append(s.environ, "CONTAINERD_ADDRESS="+server.Address())
	return func(svc ipc.Service) {
		remove := exec.CommandContext(t.Context(), "ctr", "-a", server.Address(), "-n", "locald", "tasks", "rm", "-f", svc.ContainerID)
		if out, err := remove.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

func onBuiltin(t *testing.T, s *sandbox) func(ipc.Service) {
	if os.Geteuid() != 0 {
		missing(t, "builtin", "only root can become somebody else")
	}
	return s.killContainer
}

// killContainer kills the process that stands for a container.
func (s *sandbox) killContainer(svc ipc.Service) {
	s.t.Helper()
	for _, pid := range children(s.t, s.keeper(s.status().Daemon.PID)) {
		argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(argv), "\x00container\x00") && strings.Contains(string(argv), fmt.Sprintf("/%s-%d\"", svc.Name, svc.Run)) {
			kill(s.t, pid)
			return
		}
	}
	s.t.Errorf("no process stands for run %d of %s", svc.Run, svc.Name)
}

const shop = `[project]
name = "shop"

[services.db]
image = "${env.REGISTRY}/postgres:15"
port = 5432
env = { POSTGRES_USER = "shop", POSTGRES_PASSWORD = "secret", POSTGRES_DB = "shop", POSTGRES_INITDB_ARGS = "--no-sync" }
command = ["postgres", "-c", "fsync=off"]
volumes = ["data:/var/lib/postgresql/data", "./init.sql:/docker-entrypoint-initdb.d/init.sql:ro"]

[services.web]
command = ["./web"]
depends_on = ["db"]
health = { http = "/healthz" }
`

// TestShop is examples/shop with its database in a container, which every engine
// pulls, runs, and gives back after a crash.
func TestShop(t *testing.T) {
	needPostgres(t)
	host, err := served()
	if err != nil {
		t.Skip(err)
	}
	program, err := web()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			s := newShop(t, m, host, program)
			remove := m.open(t, s)
			s.run("up")
			first := s.status()
			running(t, first)
			if db := of(first, "db"); db.Runtime != m.engine || db.ContainerID == "" {
				t.Errorf("db runs in %q as container %q", db.Runtime, db.ContainerID)
			}
			s.sells("12 products")
			s.run("run", "web", "--", "sh", "-c", `psql -Xqc "insert into products (name, description, cents, stock) values ('Tamper', 'Steel', 1500, 3)" "$DATABASE_URL"`)

			if got := s.run("logs", "db", "--no-prefix").stdout; !strings.Contains(got, "database system is ready to accept connections") {
				t.Errorf("the log of db: %s", got)
			}
			if got := s.run("exec", "db", "--", "cat", "/var/lib/postgresql/data/PG_VERSION").stdout; got != "15\n" {
				t.Errorf("exec: %q", got)
			}

			s.run("stop", "db")
			if db := of(s.status(), "db"); db.State != "stopped" || db.ExitCode == nil || *db.ExitCode != 0 {
				t.Errorf("a stopped db is %+v", db)
			}
			s.run("up")
			s.run("restart", "db")
			s.sells("13 products")

			before := s.status()
			kill(t, before.Daemon.PID)
			s.run("status", "--check")
			after := s.status()
			running(t, after)
			again(t, before, after)
			s.sells("13 products")

			s.loses("db", remove)
			s.sells("13 products")

			s.run("down", "-v", "--verify")
			if got := s.run("down", "-v", "--verify").stdout; strings.Contains(got, "volume") {
				t.Errorf("data is left: %s", got)
			}
		})
	}
}

func newShop(t *testing.T, m machine, host, program string) *sandbox {
	t.Helper()
	var s *sandbox
	if m.user {
		s = ownedBy(t, ordinary, shop)
		s.as = func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
		}
	} else {
		s = newSandbox(t, shop)
	}
	s.environ = append(s.environ, "REGISTRY="+host, "LOCALD_ENGINE="+m.engine)
	for name, source := range map[string]string{"web": program, "init.sql": "../../examples/shop/db/init.sql"} {
		content, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// loses has somebody remove a service's container, which is seen within a second
// and made anew.
func (s *sandbox) loses(name string, remove func(ipc.Service)) {
	s.t.Helper()
	for attempts := 5; ; attempts-- { // a busy machine gets more attempts, not more time
		before := of(s.status(), name)
		began := time.Now()
		remove(before)
		seen := of(s.until("seen that the container is gone", func(now ipc.Status) bool {
			return of(now, name).State != "running" || of(now, name).Run > before.Run
		}), name)
		took := time.Since(began)
		s.until("running again", func(now ipc.Status) bool {
			return of(now, name).State == "running" && of(now, name).Run > before.Run
		})
		s.t.Logf("that the container was removed was seen after %v: %s", took.Round(time.Millisecond), seen.Reason)
		if took < time.Second {
			return
		}
		if attempts == 1 {
			s.t.Errorf("it took %v to see that the container was removed", took)
			return
		}
	}
}

var products = regexp.MustCompile(`[0-9]+ products`)

// sells proves what the shop's page says.
func (s *sandbox) sells(want string) {
	s.t.Helper()
	url := of(s.status(), "web").URL
	answer, err := http.Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if got := products.FindString(string(page)); err != nil || got != want {
		s.t.Errorf("%s says %q (%v), want %q", url, got, err, want)
	}
}
