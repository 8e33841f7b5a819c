package postgres

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locald/locald/runtime"
)

func TestContainerSpec(t *testing.T) {
	project, dir := t.TempDir(), filepath.Join(t.TempDir(), "db")
	script := filepath.Join(project, "init.sql")
	write(t, script, "SELECT 1")
	c := Container{
		Dir: dir, Image: "postgres:16", Credentials: Credentials{"app", "hunter2", "shop"},
		HostPort: 40123, Init: []string{script}, Volume: "locald-shop-db",
	}
	if err := c.Create(); err != nil {
		t.Fatal(err)
	}
	base := runtime.Spec{
		Service: "db", Run: 3, Command: []string{"nothing"}, Dir: project,
		Env:   []string{"TZ=UTC", "POSTGRES_PASSWORD=stale", "POSTGRES_DB=stale"},
		Image: &runtime.Image{Pull: runtime.PullNever, Labels: map[string]string{"a": "b"}},
	}
	spec := c.Spec(base)
	wantEnv := []string{
		"TZ=UTC", "POSTGRES_INITDB_ARGS=--encoding=UTF8 --locale=C.UTF-8", "POSTGRES_USER=app", "POSTGRES_DB=shop",
		"POSTGRES_PASSWORD_FILE=/run/locald/postgres-password", "PGDATA=/var/lib/postgresql/pgdata",
	}
	if !slices.Equal(spec.Env, wantEnv) {
		t.Errorf("env:\ngot  %q\nwant %q", spec.Env, wantEnv)
	}
	files := filepath.Join(dir, "container")
	wantImage := runtime.Image{
		Name: "postgres:16", Pull: runtime.PullNever, Labels: map[string]string{"a": "b"},
		Ports: []runtime.Port{{Host: 40123, Container: 5432}},
		Mounts: []runtime.Mount{
			{Source: "locald-shop-db", Target: "/var/lib/postgresql"},
			{Source: filepath.Join(files, "password"), Target: "/run/locald/postgres-password", ReadOnly: true},
			{Source: filepath.Join(files, "init-001.sql"), Target: "/docker-entrypoint-initdb.d/locald-001-init.sql", ReadOnly: true},
		},
	}
	if !reflect.DeepEqual(*spec.Image, wantImage) {
		t.Errorf("image:\ngot  %+v\nwant %+v", *spec.Image, wantImage)
	}
	if spec.Service != "db" || spec.Run != 3 || spec.Command != nil || spec.StopSignal != "SIGINT" {
		t.Errorf("got %+v", spec)
	}
	if len(base.Image.Mounts) != 0 || base.Image.Name != "" {
		t.Error("the base spec was changed")
	}
	for _, m := range wantImage.Mounts[1:] {
		fi, err := os.Stat(m.Source)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o444 {
			t.Errorf("%s has mode %v, but the container's own user must be able to read it", m.Source, fi.Mode())
		}
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v: other users of the machine must be kept out", fi.Mode(), err)
	}
	password, err := os.ReadFile(wantImage.Mounts[1].Source)
	if err != nil || string(password) != "hunter2" {
		t.Errorf("got password file %q, %v", password, err)
	}
	if strings.Contains(strings.Join(spec.Env, " "), "hunter2") {
		t.Error("the password is in the environment")
	}
}

func TestContainerFilesFollowTheSettings(t *testing.T) {
	c := Container{Dir: t.TempDir(), Credentials: Credentials{Password: "one"}, Init: []string{filepath.Join(t.TempDir(), "a.sql")}}
	wantFault(t, c.Create(), "config_invalid", "a.sql: no such file")
	write(t, c.Init[0], "SELECT 1")
	for _, password := range []string{"one", "two"} {
		c.Credentials.Password = password
		if err := c.Create(); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(c.passwordFile()); string(got) != password {
			t.Errorf("got %q, want %q", got, password)
		}
	}
}

// The spec as a real engine runs it, with the image that the tests build.
func TestContainerAnswersWithPasswordAndKeepsData(t *testing.T) {
	const image = "locald-test/postgres:15"
	if out, err := exec.Command("docker", "image", "inspect", "-f", "{{.Id}}", image).CombinedOutput(); err != nil {
		if strings.Contains(os.Getenv("LOCALD_TEST_REQUIRE"), "docker") {
			t.Fatalf("%s: %v: %s", image, err, out)
		}
		t.Skipf("no Docker with %s", image)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "init.sql")
	write(t, script, "CREATE TABLE kept AS SELECT 'still here' AS words;")
	name := "locald-test-" + strings.ToLower(generatePassword()[:8])
	c := Container{
		Dir: filepath.Join(dir, "db"), Image: image, Credentials: Credentials{"app", "s3:cr'et", "shop"},
		HostPort: freePort(t), Init: []string{script}, Volume: name,
	}
	s := &stand{Native: Native{Credentials: c.Credentials, Port: c.HostPort}}
	t.Cleanup(func() { _ = exec.Command("docker", "volume", "rm", name).Run() })
	for range 2 {
		if err := c.Create(); err != nil {
			t.Fatal(err)
		}
		stop := dockerRun(t, name, c.Spec(runtime.Spec{Service: "db"}), func() bool {
			_, err := s.connect(t, c.Credentials)
			return err == nil
		})
		if got := s.query(t, "SELECT words FROM kept"); got != "still here" {
			t.Errorf("got %q", got)
		}
		wrong := c.Credentials
		wrong.Password = "other"
		if _, err := s.connect(t, wrong); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
			t.Errorf("a wrong password got %v", err)
		}
		if out, err := exec.Command("docker", "inspect", name).Output(); err != nil || strings.Contains(string(out), "s3:cr") {
			t.Errorf("the engine shows the password (%v)", err)
		}
		stop()
	}
}

// dockerRun returns when the server in the container is ready.
func dockerRun(t *testing.T, name string, spec runtime.Spec, answers func() bool) (stop func()) {
	t.Helper()
	args := []string{"run", "-d", "--name", name}
	for _, v := range spec.Env {
		args = append(args, "-e", v)
	}
	for _, m := range spec.Image.Mounts {
		v := m.Source + ":" + m.Target
		if m.ReadOnly {
			v += ":ro"
		}
		args = append(args, "-v", v)
	}
	for _, p := range spec.Image.Ports {
		args = append(args, "-p", fmt.Sprintf("127.0.0.1:%d:%d", p.Host, p.Container))
	}
	if out, err := exec.Command("docker", append(args, spec.Image.Name)...).CombinedOutput(); err != nil {
		t.Fatalf("docker run: %v: %s", err, out)
	}
	stop = sync.OnceFunc(func() {
		for _, args := range [][]string{{"stop", "-t", "20", name}, {"rm", "-f", "-v", name}} {
			if out, err := exec.Command("docker", args...).CombinedOutput(); err != nil {
				t.Errorf("docker %q: %v: %s", args, err, out)
			}
		}
	})
	t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out := &transcript{}
	logs := exec.CommandContext(ctx, "docker", "logs", "-f", name)
	logs.Stdout, logs.Stderr = out, out
	if err := logs.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // the log ends when the container does
		_ = logs.Wait()
		cancel()
	}()
	// Every line may be the one that the server is ready with.
	if err := out.until(ctx, func(string) bool { return answers() }); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return stop
}
