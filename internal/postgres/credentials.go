package postgres

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/locald/locald/runtime"
)

// Settings is a managed Postgres as it is configured, defaults filled in.
type Settings struct {
	Service  string   // its name, for what people are told to type
	Version  string   // "16", also "16.4"; "" is any
	Database string   // never ""
	User     string   // never ""
	Password string   // "" is generated
	Init     []string // absolute paths of SQL scripts
	Runtime  string   // "auto", "container", "process"; "" is "auto"
	Image    string   // "" is the official image of the version
}

// Credentials are what a client needs to log in. The user owns the database
// and is a superuser.
type Credentials struct {
	User     string `json:"user"`
	Password string `json:"password"`
	Database string `json:"database"`
}

// String leaves the password out, so that printing credentials is harmless.
func (c Credentials) String() string { return c.User + "@" + c.Database }

// GoString leaves the password out like String.
func (c Credentials) GoString() string { return c.String() }

const (
	credentialsFile = "credentials.json"
	passwordBytes   = 18  // of randomness: 24 characters of base64
	maxIdentifier   = 63  // NAMEDATALEN-1; Postgres cuts longer names silently
	maxPassword     = 900 // what initdb reads from a password file in all versions is 1 KiB at most
)

// LoadCredentials returns the credentials of the service whose directory is
// dir, which it makes (0700) when there is none. A password that is written in
// the settings is used as it is. One that is not is generated once and kept in
// dir/credentials.json (0600), which is written whole or not at all; it is also
// where the last written password stays when it is no longer written. Callers
// that load the credentials of one directory at the same time get the same
// ones.
//
// Its error is a *runtime.Fault when the settings or the file cannot be used.
func LoadCredentials(dir string, s Settings) (Credentials, error) {
	if err := s.check(); err != nil {
		return Credentials{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Credentials{}, err
	}
	file := filepath.Join(dir, credentialsFile)
	kept, err := readCredentials(file, s.Service)
	found := err == nil
	// A written password also replaces a damaged file.
	if err != nil && !errors.Is(err, fs.ErrNotExist) && s.Password == "" {
		return Credentials{}, err
	}
	want := Credentials{User: s.User, Password: s.Password, Database: s.Database}
	if want.Password == "" {
		want.Password = kept.Password
	}
	if found && want == kept {
		return want, nil
	}
	if want.Password != "" {
		return want, writeJSON(file, want, os.Rename)
	}
	want.Password = generatePassword()
	// A link does not replace what another caller has written meanwhile.
	err = writeJSON(file, want, os.Link)
	if errors.Is(err, fs.ErrExist) {
		return LoadCredentials(dir, s)
	}
	return want, err
}

// Unchanged is nil when the settings fit data that was made with the credentials
// that are kept in dir, by a server whose own settings cannot be changed here.
func Unchanged(dir string, s Settings) error {
	kept, err := readCredentials(filepath.Join(dir, credentialsFile), s.Service)
	if err != nil {
		return nil //nolint:nilerr // LoadCredentials says what is wrong with it
	}
	var wrong []string
	hint := ""
	if s.User != kept.User || s.Database != kept.Database {
		wrong = append(wrong, fmt.Sprintf("user %q and database %q, and user %q and database %q are asked for", kept.User, kept.Database, s.User, s.Database))
		hint = fmt.Sprintf("user = %q, database = %q, or ", kept.User, kept.Database)
	}
	if s.Password != "" && s.Password != kept.Password {
		wrong = append(wrong, "another password")
	}
	if wrong == nil {
		return nil
	}
	return &runtime.Fault{
		Code: "config_invalid", Hint: hint + "to start afresh without that data: locald down -v " + s.Service,
		Err: fmt.Errorf("the data of %s was made for %s", s.Service, strings.Join(wrong, ", and for ")),
	}
}

func generatePassword() string {
	var b [passwordBytes]byte
	_, _ = rand.Read(b[:]) // crypto/rand: never returns an error
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// check finds what Postgres would refuse late, or accept and change.
func (s Settings) check() error {
	for _, f := range []struct {
		key, value string
		limit      int
	}{{"user", s.User, maxIdentifier}, {"database", s.Database, maxIdentifier}, {"password", s.Password, maxPassword}} {
		var why string
		switch {
		case f.value == "" && f.key != "password":
			why = "is empty"
		case strings.ContainsAny(f.value, "\x00\r\n"):
			why = "holds a line break or a NUL byte"
		case len(f.value) > f.limit:
			why = fmt.Sprintf("is longer than %d bytes", f.limit)
		case f.key == "user" && strings.ContainsAny(f.value, "\"$'\\"):
			why = "holds one of \" $ ' \\, which Postgres does not allow in the name of a first user"
		case f.key == "user" && strings.HasPrefix(f.value, "pg_"):
			why = `begins with "pg_", which Postgres keeps for itself`
		default:
			continue
		}
		return &runtime.Fault{
			Code: "config_invalid",
			Hint: fmt.Sprintf("%s = %q", f.key, "app"),
			Err:  fmt.Errorf("%s of the postgres service %s", f.key, why),
		}
	}
	return nil
}

func readCredentials(file, service string) (Credentials, error) {
	var c Credentials
	content, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(content, &c); err != nil || c.Password == "" {
		return Credentials{}, &runtime.Fault{
			Code: "state_damaged",
			Hint: fmt.Sprintf(`password = "…" under [services.%s]`, service),
			Err:  fmt.Errorf("%s is damaged: it holds no credentials", file),
		}
	}
	return c, nil
}

// writeJSON makes a complete, synced file beside file and has place put it
// there.
func writeJSON(file string, value any, place func(from, to string) error) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, "."+filepath.Base(file)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // not there any more after a rename
	_, err = f.Write(append(content, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := place(f.Name(), file); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Variables is what a client of the server at host and port needs in its
// environment, for `locald exec db psql` and the like: PGHOST, PGPORT, PGUSER,
// PGPASSWORD, PGDATABASE and PGSSLMODE, as "KEY=value".
func Variables(c Credentials, host string, port int) []string {
	return []string{
		"PGHOST=" + host,
		"PGPORT=" + strconv.Itoa(port),
		"PGUSER=" + c.User,
		"PGPASSWORD=" + c.Password,
		"PGDATABASE=" + c.Database,
		"PGSSLMODE=disable",
	}
}
