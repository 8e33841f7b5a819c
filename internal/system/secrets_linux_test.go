package system

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// planted is one secret, and where it may be.
type planted struct {
	value string
	files []string // below the state directory, by their last part
}

// in reports whether the secret is in a text, as it is or as base64 at any
// offset, as JSON has what may be no text.
func (p planted) in(text string) bool {
	if strings.Contains(text, p.value) {
		return true
	}
	for offset := range 3 {
		whole := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", offset) + p.value))
		if strings.Contains(text, whole[4:len(whole)-4]) {
			return true
		}
	}
	return false
}

const secretive = `[project]
name = "quiet"

[services.db]
type = "postgres"
runtime = "process"
password = "WRITTENPASSWORD"

[services.other]
type = "postgres"
runtime = "process"

[services.web]
type = "worker"
command = ["$PROGRAM", "once", "web.notes"]
depends_on = ["db", "other"]
env_file = [".env.web"]
env = { MY_TOKEN = "${env.DEPLOY_TOKEN}", API_KEY = "LITERAL", DSN = "redis://ana:INURL@127.0.0.1/1", OTHER = "${services.other.url}" }

[services.absent]
type = "worker"
command = ["/absent/${env.DEPLOY_TOKEN}/${env.LATER_SECRET:-}"]
restart = "no"
profiles = ["fails"]

[services.nowhere]
type = "worker"
command = "exit 0"
workdir = "nowhere"
env = { DEPLOY = "${env.DEPLOY_TOKEN}" }
restart = "no"
profiles = ["fails"]

[services.sick]
type = "worker"
command = ["$PROGRAM", "once", "sick.notes"]
health = { command = "echo no: $DEPLOY_TOKEN $DSN; exit 1", interval = "100ms", start_period = "300ms" }
env = { DSN = "redis://ana:INURL@127.0.0.1/1" }
profiles = ["fails"]

[services.refused]
type = "worker"
command = ["$PROGRAM", "once", "refused.notes"]
health = { http = "http://127.0.0.1:1/${env.DEPLOY_TOKEN}", interval = "100ms", start_period = "300ms" }
profiles = ["fails"]
`

const secretiveContainers = `
[services.boxed]
image = "locald-test/shell:1"
entrypoint = ["/absent"]
command = ["${env.DEPLOY_TOKEN}"]
env = { MY_TOKEN = "${env.DEPLOY_TOKEN}" }
health = "none"
restart = "no"
profiles = ["fails"]

[services.inside]
image = "locald-test/shell:1"
entrypoint = ["/program"]
command = ["once", "/inside.notes"]
volumes = ["$PROGRAM:/program:ro"]
env = { MY_TOKEN = "${env.DEPLOY_TOKEN}", DSN = "redis://ana:INURL@127.0.0.1/1" }
health = "none"
profiles = ["box"]

[services.private]
image = "REGISTRY/private:1"
health = "none"
profiles = ["fails"]
`

// TestPlantedSecrets gives locald secrets in every way there is, has it do
// everything that it can do and fail in every way that quotes something, and
// then looks for them in all that it has written, printed and executed.
func TestPlantedSecrets(t *testing.T) {
	promise(t, "P18", "F85", "F87", "S18")
	needPostgres(t)
	needEngine(t)
	secrets := map[string]planted{}
	secret := func(name string, files ...string) string {
		value := rand.Text() + rand.Text()
		secrets[name] = planted{value, files}
		return value
	}
	const environment = "environment.json" // what the client's environment and the configuration are kept in
	text := secretive + secretiveContainers
	text = strings.ReplaceAll(text, "LITERAL", secret("written in the file", environment))
	text = strings.ReplaceAll(text, "INURL", secret("the password of a URL", environment))
	text = strings.ReplaceAll(text, "WRITTENPASSWORD", secret("a database's password", environment, "credentials.json"))
	registry := refusing(t)
	text = strings.ReplaceAll(text, "REGISTRY", registry)
	s := newSandbox(t, config(text))
	s.write(".env", "FILE_SECRET="+secret("in .env", environment)+"\n")
	s.write(".env.web", "SERVICE_PASSWORD="+secret("in an env_file", environment)+"\n")
	login := base64.StdEncoding.EncodeToString([]byte("ana:" + secret("for a registry")))
	secrets["for a registry, as it is stored"] = planted{value: login}
	docker := filepath.Join(s.root, "docker")
	if err := os.Mkdir(docker, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(docker, "config.json"), []byte(`{"auths":{"`+registry+`":{"auth":"`+login+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.environ = append(s.environ,
		"DOCKER_CONFIG="+docker,
		"DEPLOY_TOKEN="+secret("inherited", environment),
		"INNOCENT="+secret("inherited under a harmless name", environment))

	seen := watchArguments(t)
	said := map[string]string{}
	for _, line := range everything {
		said[line] += s.says(strings.Fields(line)...)
	}
	for _, terminal := range []string{"env web", "env", "env web --explain", "status", "logs --tail 50", "config show", "up web", "up --plan", "doctor"} {
		said["on a terminal: "+terminal] = s.onTerminal(strings.Fields(terminal)...)
	}
	s.write(".env", "FILE_SECRET="+secrets["in .env"].value+"\nthis is not a line "+secrets["in .env"].value+"\n")
	for _, line := range []string{"config check", "config check --json", "config show", "up", "up --json", "restart web", "env web"} {
		said["with a broken .env: "+line] = s.says(strings.Fields(line)...)
	}
	s.write(".env", "FILE_SECRET="+secrets["in .env"].value+"\n")
	for i, broken := range []string{
		`env = { API_KEY = [ "` + secrets["written in the file"].value + `" ] }`,
		`env = { API_KEY = "` + secrets["written in the file"].value + ` }`,
	} {
		s.write("locald.toml", config(text)+"\n[services.broken]\ncommand = \"true\"\n"+broken+"\n")
		for _, line := range []string{"config check", "config check --json", "up", "up --json"} {
			said[fmt.Sprintf("with broken file %d: %s", i, line)] = s.says(strings.Fields(line)...)
		}
	}
	// A restore of what was wanted, the file being broken, and after a crash that
	// is told in the log.
	status := s.status()
	signal(t, status.Daemon.PID, unix.SIGABRT)
	said["restore of a broken file"] = s.says("status", "--json")
	s.write("locald.toml", config(text))
	status = s.status()
	signal(t, s.keeper(status.Daemon.PID), unix.SIGABRT)
	said["after the end of the keeper"] = s.says("up", "web")
	said["status"] += s.says("status", "--json") + s.says("status", "--history") + s.says("server", "logs")

	secrets["a database's generated password"] = planted{s.generated("other"), []string{"credentials.json"}}
	arguments := seen()
	for name, p := range secrets {
		for command, text := range said {
			// A name is what makes a value a secret that is hidden in answers.
			if p.in(text) && (name != "inherited under a harmless name" || !strings.Contains(command, "env")) {
				t.Errorf("the secret %s is in the answer of %q: %s", name, command, around(text, p.value))
			}
		}
		for _, argv := range arguments {
			if p.in(argv) {
				t.Errorf("the secret %s is among the arguments of %s", name, around(argv, p.value))
			}
		}
		s.keeps(name, p)
	}
	if log, err := os.ReadFile(s.places().Log); err != nil || !strings.Contains(string(log), "SIGABRT") {
		t.Errorf("no crash report is in the log, so nothing was shown of it: %v", err)
	}
	t.Logf("%d secrets, %d answers, %d command lines", len(secrets), len(said), len(arguments))
	tried(t, len(secrets)*(len(said)+len(arguments)), 0)
	s.run("down", "-v")
}

// everything is what is asked of locald, failures included.
var everything = []string{
	"up --plan", "up web db other", "up", "up --json", "up inside", "up --verbose --force-recreate web",
	"up absent", "up absent --json", "up nowhere", "up nowhere --json", "up boxed", "up boxed --json", "up private", "up private --json",
	"up sick --wait-timeout 1", "up sick --json --wait-timeout 1", "up refused --wait-timeout 1", "up refused --json --wait-timeout 1",
	"wait sick --timeout 1", "wait web", "status", "status --json", "status --all", "status --all --json", "status --history", "status --history --json", "status --check",
	"logs", "logs --json", "logs -t absent", "logs --raw sick", "port db", "port web", "config show", "config show --json", "config check", "config check --json", "config schema",
	"doctor", "doctor --json", "server status", "server status --json", "server logs", "version", "version --json",
	"run web -- true", "run web -- /absent", "exec web -- true", "exec db -- true", "exec inside -- /program tries", "exec nosuch -- true",
	"restart web", "restart absent", "stop web", "start web", "start absent boxed", "stop sick refused", "down nosuch", "status --json", "up --plan --json",
}

// says is all that a command prints, whatever its exit status.
func (s *sandbox) says(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	out, err := s.command(ctx, args...).CombinedOutput()
	if ctx.Err() != nil {
		s.t.Errorf("locald %v: %v: %s", args, err, out)
	}
	return string(out)
}

// onTerminal is what a command prints on a terminal.
func (s *sandbox) onTerminal(args ...string) string {
	s.t.Helper()
	ours, theirs := terminal(s.t)
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	cmd := s.command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	theirs.Close()
	out, _ := io.ReadAll(ours) // ends with an error once nobody has the terminal
	_ = cmd.Wait()
	if len(out) == 0 {
		s.t.Errorf("locald %v prints nothing on a terminal", args)
	}
	return string(out)
}

func terminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// refusing is the address of a registry that lets nobody in, whatever they say.
func refusing(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		http.Error(w, "you are not let in: "+r.Header.Get("Authorization")[:0], http.StatusUnauthorized)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// watchArguments reads the arguments of every process of the machine, over and
// over; seen ends that and returns all that were different.
func watchArguments(t *testing.T) (seen func() []string) {
	t.Helper()
	all := map[string]bool{}
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		pause := time.NewTicker(time.Millisecond)
		defer pause.Stop()
		for {
			found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, path := range found {
				if argv, err := os.ReadFile(path); err == nil {
					all[strings.ReplaceAll(string(argv), "\x00", " ")] = true
				}
			}
			select {
			case <-stop:
				return
			case <-pause.C:
			}
		}
	})
	end := sync.OnceFunc(func() { close(stop); watching.Wait() })
	t.Cleanup(end)
	return func() []string { end(); return slices.Collect(maps.Keys(all)) }
}

// generated is the password that locald made for a database.
func (s *sandbox) generated(service string) string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.places().Dir, "projects", "*", "data", service, "credentials.json"))
	if err != nil || len(found) != 1 {
		s.t.Fatalf("credentials of %s: %v, %v", service, found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		s.t.Fatal(err)
	}
	var known struct{ Password string }
	if err := json.Unmarshal(text, &known); err != nil || len(known.Password) < 20 {
		s.t.Fatalf("credentials of %s: %v", service, err)
	}
	return known.Password
}

// keeps proves that a secret is in no file but those where it may be, which
// nobody else may read. What is the user's own is not looked at.
func (s *sandbox) keeps(name string, p planted) {
	s.t.Helper()
	found := 0
	err := filepath.WalkDir(s.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == s.dir || path == filepath.Join(s.root, "docker") {
			if path == s.dir || entry != nil && entry.IsDir() && err == nil {
				return fs.SkipDir
			}
			return nil // it went away
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || !p.in(string(text)) {
			return nil //nolint:nilerr // it went away
		}
		found++
		info, err := entry.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			s.t.Errorf("%s has a secret in it, and is %v: %v", path, info.Mode(), err)
		}
		if !slices.Contains(p.files, filepath.Base(path)) {
			s.t.Errorf("the secret %s is in %s: %s", name, path, around(string(text), p.value))
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
	if found == 0 && len(p.files) > 0 {
		s.t.Errorf("the secret %s is nowhere, so nothing was shown of it", name)
	}
}

// around is what stands around a secret, without it.
func around(text, secret string) string {
	at := strings.Index(text, secret)
	if at < 0 {
		return "as base64"
	}
	return fmt.Sprintf("%q", strings.ReplaceAll(text[max(0, at-120):min(len(text), at+len(secret)+80)], secret, "<SECRET>"))
}
