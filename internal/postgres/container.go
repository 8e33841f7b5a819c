package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/locald/locald/runtime"
)

// Where things are in the container. The volume is mounted above both places
// that the official images have used for their data (from version 18 on
// /var/lib/postgresql, before it /var/lib/postgresql/data), so one volume fits
// every version.
const (
	containerPort     = 5432
	containerVolume   = "/var/lib/postgresql"
	containerData     = "/var/lib/postgresql/pgdata"
	containerPassword = "/run/locald/postgres-password"
	containerInit     = "/docker-entrypoint-initdb.d"
	containerFiles    = "container" // below Dir
)

// Container is a managed Postgres in a container whose image keeps to the
// official image's conventions.
type Container struct {
	Dir         string // the service's directory, private to locald's user
	Image       string
	Credentials Credentials
	HostPort    int      // on 127.0.0.1
	Init        []string // absolute paths of SQL scripts, run once, in order
	Volume      string   // the name of the volume that keeps the data
}

// Create writes what the container reads through read-only mounts: the
// password, which therefore is in no argv and in no environment, and the init
// scripts. They are readable for any user so that a container's own user can
// read them; other users of this machine are kept out by Dir, which is 0700.
// Create must have succeeded before each start of Spec.
func (c Container) Create() error {
	if err := checkScripts(c.Init); err != nil {
		return err
	}
	dir := filepath.Join(c.Dir, containerFiles)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(c.Dir, 0o700); err != nil {
		return err
	}
	if err := writeReadable(c.passwordFile(), []byte(c.Credentials.Password)); err != nil {
		return err
	}
	for i, script := range c.Init {
		content, err := os.ReadFile(script)
		if err != nil {
			return err
		}
		if err := writeReadable(c.scriptFile(i), content); err != nil {
			return err
		}
	}
	return nil
}

// Spec is the container: base with an image, its mounts and its port.
func (c Container) Spec(base runtime.Spec) runtime.Spec {
	spec := base
	spec.Command, spec.Dir, spec.Unprivileged = nil, "", false
	spec.StopSignal = "SIGINT" // fast shutdown: does not wait for clients to leave
	spec.Env = environ{}.add(base.Env...).addNew(
		"POSTGRES_INITDB_ARGS=--encoding=UTF8 --locale=C.UTF-8",
	).drop("POSTGRES_PASSWORD").add(
		"POSTGRES_USER="+c.Credentials.User,
		"POSTGRES_DB="+c.Credentials.Database,
		"POSTGRES_PASSWORD_FILE="+containerPassword,
		"PGDATA="+containerData,
	)
	image := runtime.Image{}
	if base.Image != nil {
		image = *base.Image
	}
	image.Name = c.Image
	image.Ports = append(image.Ports[:len(image.Ports):len(image.Ports)], runtime.Port{Host: c.HostPort, Container: containerPort})
	mounts := append(image.Mounts[:len(image.Mounts):len(image.Mounts)],
		runtime.Mount{Source: c.Volume, Target: containerVolume},
		runtime.Mount{Source: c.passwordFile(), Target: containerPassword, ReadOnly: true})
	for i, script := range c.Init {
		// Letters sort behind the digits that the scripts of derived images
		// (postgis, timescaledb) begin with: those run first.
		name := fmt.Sprintf("locald-%03d-%s", i+1, filepath.Base(script))
		mounts = append(mounts, runtime.Mount{Source: c.scriptFile(i), Target: containerInit + "/" + name, ReadOnly: true})
	}
	image.Mounts = mounts
	spec.Image = &image
	return spec
}

func (c Container) passwordFile() string {
	return filepath.Join(c.Dir, containerFiles, "password")
}

func (c Container) scriptFile(i int) string {
	return filepath.Join(c.Dir, containerFiles, fmt.Sprintf("init-%03d.sql", i+1))
}

// writeReadable makes a file that everybody may read, whatever the umask is.
func writeReadable(file string, content []byte) error {
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return err
	}
	return os.Chmod(file, 0o444)
}

// checkScripts says what is wrong with an init script before anything is made.
// Only SQL means the same to psql and to a container's entry point.
func checkScripts(files []string) error {
	for _, file := range files {
		if filepath.Ext(file) != ".sql" {
			return &runtime.Fault{
				Code: "config_invalid",
				Hint: `init = ["db/init.sql"]`,
				Err:  fmt.Errorf("init script %s is not a .sql file", file),
			}
		}
		f, err := os.Open(file)
		if err == nil {
			var fi os.FileInfo
			fi, err = f.Stat()
			if err == nil && fi.IsDir() {
				err = errors.New("is a directory")
			}
			_ = f.Close()
		}
		if err != nil {
			var path *os.PathError
			if errors.As(err, &path) {
				err = path.Err
			}
			return &runtime.Fault{Code: "config_invalid", Hint: "locald config check", Err: fmt.Errorf("init script %s: %w", file, err)}
		}
	}
	return nil
}
