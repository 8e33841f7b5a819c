// Command entrypoint starts Postgres in the test image as the official image's
// entrypoint does: it honours POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB,
// POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD, the first three also as
// NAME_FILE, and PGDATA, and runs what is in /docker-entrypoint-initdb.d (.sql
// and .sh) when it has created the data. As root it gives the data to the user
// postgres and becomes that user. Other commands than postgres are run as they
// are.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const scriptsDir = "/docker-entrypoint-initdb.d"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "entrypoint: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		args = append([]string{"postgres"}, args...)
	}
	if args[0] == "postgres" {
		data := cmp.Or(os.Getenv("PGDATA"), "/var/lib/postgresql/data")
		if err := os.Setenv("PGDATA", data); err != nil {
			return err
		}
		if os.Getuid() == 0 {
			return stepDown(data, args)
		}
		if err := prepare(data); err != nil {
			return err
		}
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(program, args, os.Environ())
}

// stepDown hands the data to the user postgres and starts again as that user.
func stepDown(data string, args []string) error {
	uid, gid, err := account("postgres")
	if err != nil {
		return err
	}
	for _, dir := range []string{data, "/run/postgresql"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(p, uid, gid)
		})
		if err != nil {
			return err
		}
	}
	if err := os.Chmod(data, 0o700); err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups([]int{gid}), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return err
	}
	if err := os.Setenv("HOME", "/var/lib/postgresql"); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", append([]string{os.Args[0]}, args...), os.Environ())
}

func account(name string) (uid, gid int, err error) {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) > 3 && fields[0] == name {
			uid, err1 := strconv.Atoi(fields[2])
			gid, err2 := strconv.Atoi(fields[3])
			return uid, gid, errors.Join(err1, err2)
		}
	}
	return 0, 0, fmt.Errorf("no user %s in /etc/passwd", name)
}

// prepare creates the data when there is none.
func prepare(data string) error {
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		fmt.Println("PostgreSQL Database directory appears to contain a database; Skipping initialization")
		return nil
	}
	password, err := setting("POSTGRES_PASSWORD")
	if err != nil {
		return err
	}
	user, err := setting("POSTGRES_USER")
	if err != nil {
		return err
	}
	database, err := setting("POSTGRES_DB")
	if err != nil {
		return err
	}
	user = cmp.Or(user, "postgres")
	database = cmp.Or(database, user)
	auth := cmp.Or(os.Getenv("POSTGRES_HOST_AUTH_METHOD"), "scram-sha-256")
	if password == "" && auth != "trust" {
		return errors.New("database is uninitialized and superuser password is not specified: set POSTGRES_PASSWORD")
	}
	if err := initdb(data, user, password); err != nil {
		return err
	}
	if err := appendTo(filepath.Join(data, "pg_hba.conf"), "host all all all "+auth); err != nil {
		return err
	}
	if err := appendTo(filepath.Join(data, "postgresql.conf"), "listen_addresses = '*'"); err != nil {
		return err
	}
	if database != "postgres" {
		create := fmt.Sprintf("CREATE DATABASE \"%s\";\n", strings.ReplaceAll(database, `"`, `""`))
		if err := command(create, "postgres", "--single", "-D", data, "postgres"); err != nil {
			return err
		}
	}
	if err := runScripts(data, user, password, database); err != nil {
		return err
	}
	fmt.Println("PostgreSQL init process complete; ready for start up.")
	return nil
}

func initdb(data, user, password string) error {
	args := []string{"--username=" + user, "-D", data}
	if password != "" {
		f, err := os.CreateTemp("", "password")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name())
		if _, err := fmt.Fprintln(f, password); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		args = append(args, "--pwfile="+f.Name())
	}
	return command("", "initdb", append(args, strings.Fields(os.Getenv("POSTGRES_INITDB_ARGS"))...)...)
}

// runScripts runs what the user put beside the image, against a server that
// only this container's socket reaches.
func runScripts(data, user, password, database string) error {
	scripts, err := filepath.Glob(scriptsDir + "/*")
	if err != nil || len(scripts) == 0 {
		return err
	}
	if err := os.Setenv("PGPASSWORD", password); err != nil {
		return err
	}
	if err := command("", "pg_ctl", "-D", data, "-o", "-c listen_addresses=''", "-w", "start"); err != nil {
		return err
	}
	for _, script := range scripts {
		fmt.Println("running", script)
		switch filepath.Ext(script) {
		case ".sql":
			err = command("", "psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-h", "/run/postgresql", "-U", user, "-d", database, "-f", script)
		case ".sh":
			err = command("", "/bin/sh", script)
		}
		if err != nil {
			return err
		}
	}
	return command("", "pg_ctl", "-D", data, "-m", "fast", "-w", "stop")
}

// setting is a variable, or the content of the file that NAME_FILE names.
func setting(name string) (string, error) {
	path := os.Getenv(name + "_FILE")
	if path == "" {
		return os.Getenv(name), nil
	}
	if os.Getenv(name) != "" {
		return "", fmt.Errorf("both %s and %s_FILE are set", name, name)
	}
	content, err := os.ReadFile(path)
	return strings.TrimRight(string(content), "\n"), err
}

func appendTo(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}

func command(stdin, name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Stdin = strings.NewReader(stdin)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
