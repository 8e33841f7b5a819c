package postgres

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var shop = Settings{Service: "db", User: "app", Database: "shop"}

func load(t *testing.T, dir string, s Settings) Credentials {
	t.Helper()
	c, err := LoadCredentials(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGeneratedPasswordIsKeptPrivately(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "db")
	first := load(t, dir, shop)
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{24}$`).MatchString(first.Password) {
		t.Errorf("%q is not 24 characters that a URL takes as they are", first.Password)
	}
	if again := load(t, dir, shop); again != first {
		t.Error("a second load gave other credentials")
	}
	if other := load(t, filepath.Join(t.TempDir(), "db"), shop); other.Password == first.Password {
		t.Error("two services got the same password")
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "credentials.json"): 0o600} {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, fi.Mode().Perm(), want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v (%v), want one file", entries, err)
	}
}

func TestWrittenPasswordIsUsed(t *testing.T) {
	dir := t.TempDir()
	generated := load(t, dir, shop)
	written := shop
	written.Password = "hunter2"
	if got := load(t, dir, written); got.Password != "hunter2" {
		t.Errorf("got %q, want the written one", got.Password)
	}
	if got := load(t, dir, shop); got.Password != "hunter2" || got.Password == generated.Password {
		t.Errorf("got %q, want the one that was written last", got.Password)
	}
	renamed := shop
	renamed.Database = "store"
	if got, want := load(t, dir, renamed), (Credentials{"app", "hunter2", "store"}); got != want {
		t.Errorf("got %#v with %q", got, got.Password)
	}
}

func TestManyLoadsAtOnceAgree(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	got := make([]Credentials, 50)
	for i := range got {
		wg.Go(func() { got[i], _ = LoadCredentials(dir, shop) })
	}
	wg.Wait()
	for _, c := range got {
		if c != got[0] || c.Password == "" {
			t.Fatalf("got passwords %q and %q", c.Password, got[0].Password)
		}
	}
}

func TestUnusableSettings(t *testing.T) {
	for words, change := range map[string]func(*Settings){
		"user of the postgres service is empty":     func(s *Settings) { s.User = "" },
		"database of the postgres service is empty": func(s *Settings) { s.Database = "" },
		"user of the postgres service is longer":    func(s *Settings) { s.User = strings.Repeat("u", 64) },
		"password of the postgres service holds":    func(s *Settings) { s.Password = "secret\nword" },
		`begins with "pg_"`:                         func(s *Settings) { s.User = "pg_app" },
		`holds one of " $ '`:                        func(s *Settings) { s.User = "o'neill" },
	} {
		s := shop
		change(&s)
		dir := filepath.Join(t.TempDir(), "db")
		_, err := LoadCredentials(dir, s)
		wantFault(t, err, "config_invalid", words)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in %q", err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Error("something was made for settings that cannot be used")
		}
	}
}

func TestDamagedCredentialsAreTold(t *testing.T) {
	for _, content := range []string{"", "{", "{}", "\x00\x00"} {
		dir := t.TempDir()
		file := filepath.Join(dir, "credentials.json")
		write(t, file, content)
		_, err := LoadCredentials(dir, shop)
		wantFault(t, err, "state_damaged", file, "[services.db]")
		if now, _ := os.ReadFile(file); string(now) != content {
			t.Errorf("the damaged file was changed to %q", now)
		}
		written := shop
		written.Password = "hunter2"
		if got, err := LoadCredentials(dir, written); err != nil || got.Password != "hunter2" {
			t.Errorf("after doing what the hint says: %v, %v", got, err)
		}
	}
}

func TestCredentialsPrintWithoutPassword(t *testing.T) {
	c := Credentials{"app", "hunter2", "shop"}
	n := Native{Credentials: c}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, c) + fmt.Sprintf(verb, n); strings.Contains(got, "hunter2") {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestVariables(t *testing.T) {
	got := strings.Join(Variables(Credentials{"app", "hunter2", "shop"}, "127.0.0.1", 40123), " ")
	want := "PGHOST=127.0.0.1 PGPORT=40123 PGUSER=app PGPASSWORD=hunter2 PGDATABASE=shop PGSSLMODE=disable"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if p := generatePassword(); url.QueryEscape(p) != p {
		t.Errorf("%q needs escaping in a URL", p)
	}
}
