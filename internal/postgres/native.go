package postgres

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
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

const (
	dataDir    = "data"
	newDir     = "data.new"
	scratchDir = "create"
	// madeFile is in the data directory, so it comes and goes with the data: what
	// of the Credentials the data was last given, as origin has it.
	madeFile = "locald.json"
)

// Native is a managed Postgres as a process of this machine.
type Native struct {
	Install     Install
	Credentials Credentials
	Dir         string   // the service's directory, absolute, private to locald's user
	Port        int      // on 127.0.0.1
	Init        []string // absolute paths of SQL scripts, run once, in order
}

// Major is the major version of Postgres that made the native data in the
// service's directory dir, "" when there is none.
func Major(dir string) (string, error) {
	content, err := os.ReadFile(filepath.Join(dir, dataDir, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(content)), err
}

// Create makes the data when there is none, and readies what there is for a
// start. It must have succeeded before each start of Spec, and nothing of an
// earlier run may be left.
//
// The data is made in a directory of its own and takes its place in one step
// when it is complete and on disk, so an attempt that did not end, for whatever
// reason, is as if it had not been; the next one removes its traces. The steps
// run as instances of rt, one after the other, each removed when it has ended;
// they carry base's identity and write to its log.
//
// Data that exists must be of the Install's major version and of the same user
// and database; a changed password is given to it. A lock file that a killed
// server left is removed when its process number belongs to another program by
// now.
//
// Errors that people can do something about are *runtime.Fault; that of an init
// script names the script's line.
func (n Native) Create(ctx context.Context, rt runtime.Runtime, base runtime.Spec, report func(runtime.Progress)) error {
	b := build{Native: n, rt: rt, base: base, report: report}
	have, err := Major(n.Dir)
	if err != nil {
		return err
	}
	defer b.sweep()
	if have != "" {
		return b.reuse(ctx, have)
	}
	if err := checkScripts(n.Init); err != nil {
		return err
	}
	if err := b.free(); err != nil {
		return err
	}
	if err := b.prepare(); err != nil {
		return err
	}
	if err := b.create(ctx); err != nil {
		return errors.Join(err, os.RemoveAll(b.path(newDir)))
	}
	return nil
}

// Spec is the server in the foreground. It listens on 127.0.0.1 and on no Unix
// socket, and ends on SIGINT as fast as it can without losing anything. It
// syncs what it commits: people keep their data here, and a machine that loses
// power must not cost them more than the transaction in flight.
func (n Native) Spec(base runtime.Spec) runtime.Spec {
	spec := base
	spec.Image = nil
	spec.Command = []string{n.program("postgres"), "-D", n.path(dataDir)}
	for _, setting := range []string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(n.Port), "unix_socket_directories=",
		"log_destination=stderr", "logging_collector=off",
	} {
		spec.Command = append(spec.Command, "-c", setting)
	}
	spec.Dir = n.Dir
	spec.Env = environ{}.add(base.Env...).programs()
	spec.StopSignal = "SIGINT"
	spec.Unprivileged = true
	return spec
}

func (n Native) program(name string) string { return filepath.Join(n.Install.Bin, name) }
func (n Native) path(name string) string    { return filepath.Join(n.Dir, name) }

// build is one call of Create.
type build struct {
	Native
	rt     runtime.Runtime
	base   runtime.Spec
	report func(runtime.Progress)
}

// free makes sure that nothing is in the way of the data that is to be made.
func (b build) free() error {
	entries, err := os.ReadDir(b.path(dataDir))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return &runtime.Fault{
		Code: "state_damaged",
		Hint: "to start afresh without what is in it: locald down -v " + b.base.Service,
		Err:  fmt.Errorf("%s holds no PG_VERSION, so it is not a Postgres data directory", b.path(dataDir)),
	}
}

// prepare clears what an earlier attempt left and makes the private files that
// the steps read.
func (b build) prepare() error {
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return err
	}
	for _, dir := range []string{newDir, scratchDir} {
		if err := os.RemoveAll(b.path(dir)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(b.path(scratchDir), 0o700); err != nil {
		return err
	}
	escaped := strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(b.Credentials.Password)
	return errors.Join(
		os.WriteFile(b.scratch("password"), []byte(generatePassword()+"\n"), 0o600),
		os.WriteFile(b.scratch("pgpass"), []byte("*:*:*:*:"+escaped+"\n"), 0o600),
	)
}

// sweep removes the private files; what it cannot remove the next prepare does.
func (b build) sweep() {
	_ = os.RemoveAll(b.path(scratchDir))
	_ = os.RemoveAll(InitSockets(b.Dir))
}

func (b build) scratch(name string) string { return filepath.Join(b.path(scratchDir), name) }

func (b build) create(ctx context.Context) error {
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"creating the data directory", b.initdb},
		{"creating the database " + b.Credentials.Database, b.createDatabase},
		{"running the init scripts", b.runScripts},
		{"writing the data to disk", b.finish},
	}
	for _, s := range steps {
		b.report(runtime.Progress{Step: s.name})
		if err := s.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// finish puts the data in its place. Nothing was synced until here, which is
// what makes creating it fast.
func (b build) finish(context.Context) error {
	if err := b.record(newDir); err != nil {
		return err
	}
	if err := syncTree(b.path(newDir)); err != nil {
		return err
	}
	if err := os.Rename(b.path(newDir), b.path(dataDir)); err != nil {
		return err
	}
	return syncDir(b.Dir)
}

func (b build) record(dir string) error {
	made, err := originOf(b.Credentials)
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(b.path(dir), madeFile), made, os.Rename)
}

// origin is the Credentials that data was given. Of the password there is only
// what tells whether another one is the same: it is in one file, and that is
// not this.
type origin struct {
	User     string `json:"user"`
	Database string `json:"database"`
	Salt     []byte `json:"salt"`
	Digest   []byte `json:"digest"`
}

func originOf(c Credentials) (origin, error) {
	o := origin{User: c.User, Database: c.Database, Salt: make([]byte, 16)}
	_, _ = rand.Read(o.Salt) // crypto/rand: never returns an error
	var err error
	o.Digest, err = o.digest(c.Password)
	return o, err
}

// digest costs as much to guess as what Postgres itself keeps of a password.
func (o origin) digest(password string) ([]byte, error) {
	return pbkdf2.Key(sha256.New, password, o.Salt, 4096, sha256.Size)
}

// has reports whether the data has this password.
func (o origin) has(password string) bool {
	digest, err := o.digest(password)
	return err == nil && subtle.ConstantTimeCompare(digest, o.Digest) == 1
}

// reuse readies data that exists for a start.
func (b build) reuse(ctx context.Context, have string) error {
	if have != b.Install.Version {
		why := fmt.Sprintf("the programs in %s are of version %s", b.Install.Bin, b.Install.Version)
		return mismatch("data directory "+b.Dir, have, why, packages(have), b.base.Service)
	}
	if err := unlock(b.path(dataDir)); err != nil {
		return err
	}
	made, ok := b.made()
	want := b.Credentials
	switch {
	case !ok:
		return nil
	case made.User != want.User || made.Database != want.Database:
		return &runtime.Fault{
			Code: "config_invalid",
			Hint: fmt.Sprintf("user = %q, database = %q, or to start afresh without that data: locald down -v %s", made.User, made.Database, b.base.Service),
			Err: fmt.Errorf("data directory %s was made for user %q and database %q, and user %q and database %q are asked for",
				b.Dir, made.User, made.Database, want.User, want.Database),
		}
	case made.has(want.Password):
		return nil
	}
	if err := b.prepare(); err != nil {
		return err
	}
	b.report(runtime.Progress{Step: "changing the password"})
	return b.changePassword(ctx)
}

// made is what the data was given, ok is false when it does not say: then it
// was not made here, and nothing is held against it.
func (b build) made() (o origin, ok bool) {
	content, err := os.ReadFile(filepath.Join(b.path(dataDir), madeFile))
	if err != nil || json.Unmarshal(content, &o) != nil {
		return origin{}, false
	}
	return o, true
}
