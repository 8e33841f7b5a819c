package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Options says how a store behaves. The zero value is good.
type Options struct {
	// Keychain has the credentials of registries; nil is what `docker login` and
	// `podman login` have stored for the user of this process.
	Keychain authn.Keychain
	// Transport carries requests; nil is one that uses the proxies of the
	// environment.
	Transport http.RoundTripper
	// Platform is what images are chosen for; nil is this machine.
	Platform *v1.Platform
	// Parallel is how many layers are downloaded and unpacked at once; 0 is 4.
	Parallel int
	// Tries is how often in a row something fails before a pull does; 0 is 5.
	Tries int
	// Pause is the time before the second try, which doubles; 0 is half a second.
	Pause time.Duration
	// Stall is how long a registry may send nothing; 0 is 30 seconds.
	Stall time.Duration

	// Own, if not nil, gives what is in an unpacked layer its owners, which this
	// process itself may not do. Remove then deletes trees with files of theirs.
	Own    func(dir string, owners []Owner) error
	Remove func(dir string) error
}

// Owner is whose an entry of a layer is, and its mode.
type Owner struct {
	Name     string // from the layer's root, through no link
	UID, GID int
	Mode     uint32 // 0 for a link, which has none
}

// complete puts in what is not said.
func (o Options) complete() Options {
	o.Parallel = orElse(o.Parallel, 4)
	o.Tries = orElse(o.Tries, 5)
	o.Pause = orElse(o.Pause, time.Second/2)
	o.Stall = orElse(o.Stall, 30*time.Second)
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	if o.Transport == nil {
		o.Transport = newTransport(o.Stall)
	}
	return o
}

// Store holds images below one directory. Its methods may be called
// concurrently, and several stores, also of other processes, may share the
// directory.
type Store struct {
	dir        string
	options    Options
	platform   v1.Platform
	privileged bool // owners and trusted attributes can be written
	slots      chan struct{}
	boot       string
}

// Open returns the store in dir, which it makes, 0700, if it is not there.
func Open(dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, options: o.complete(), boot: bootID()}
	s.platform = thisMachine()
	if o.Platform != nil {
		s.platform = *o.Platform
	}
	s.slots = make(chan struct{}, s.options.Parallel)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, s.about(stored(err), reference{}, "")
	}
	for _, part := range []string{"blobs", "layers", "refs", "leases", "partial", "tmp", "trash", "locks"} {
		if err := os.Mkdir(filepath.Join(dir, part), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, s.about(stored(err), reference{}, "")
		}
	}
	err = s.brief(context.Background(), func() error {
		s.privileged = privileged(s.path("tmp"))
		return nil
	})
	if err != nil {
		return nil, s.about(stored(err), reference{}, "")
	}
	return s, nil
}

func orElse[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// UserXattr reports whether the layers are to be mounted with the overlay's
// option "userxattr": they were not unpacked by the machine's root.
func (s *Store) UserXattr() bool { return !s.privileged }

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// brief takes the store's lock, shared, for a moment in which nothing is
// pruned or removed.
func (s *Store) brief(ctx context.Context, do func() error) error {
	release, err := hold(ctx, s.path("lock"), shared)
	if err != nil {
		return err
	}
	defer release()
	return do()
}

// alone takes the store's lock for itself.
func (s *Store) alone(ctx context.Context, do func() error) error {
	release, err := hold(ctx, s.path("lock"), exclusive)
	if err != nil {
		return err
	}
	defer release()
	return do()
}

// place writes a file beside its place and renames it.
func (s *Store) place(content []byte, parts ...string) error {
	f, err := os.CreateTemp(s.path("tmp"), "file-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.path(parts...))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// named is a file's name for a text that cannot be one.
func named(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:]) + ".json"
}

// blob returns a stored manifest or configuration, nil when it is not there or
// is not what it was.
func (s *Store) blob(digest v1.Hash) ([]byte, error) {
	content, err := os.ReadFile(s.path("blobs", digest.Hex))
	if errors.Is(err, fs.ErrNotExist) || err == nil && digestOf(content) != digest {
		return nil, nil
	}
	return content, err
}

func digestOf(content []byte) v1.Hash {
	sum := sha256.Sum256(content)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// tag is what refs/ holds.
type tag struct {
	Reference string    `json:"reference"`
	Digest    v1.Hash   `json:"digest"` // of the manifest for this platform
	Pulled    time.Time `json:"pulled"`
}

// tagged returns what a reference stands for; ok is false when the store does
// not know it.
func (s *Store) tagged(full string) (t tag, ok bool, err error) {
	ok, err = readJSON(s.path("refs", named(full)), &t)
	return t, ok && t.Reference == full, err
}

// readJSON reads a file that may not be there. One that cannot be understood
// counts as absent: everything in the store can be had again.
func readJSON(path string, into any) (ok bool, err error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return json.Unmarshal(content, into) == nil, nil
}

func (s *Store) placeJSON(value any, parts ...string) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return s.place(append(content, '\n'), parts...)
}

// each calls do with every JSON file of a part of the store that can be read,
// and returns the names of the others.
func each[T any](s *Store, part string, do func(file string, value T)) (broken []string, err error) {
	entries, err := os.ReadDir(s.path(part))
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		var value T
		ok, err := readJSON(s.path(part, entry.Name()), &value)
		if err != nil {
			return nil, err
		}
		if !ok {
			broken = append(broken, entry.Name())
			continue
		}
		do(entry.Name(), value)
	}
	return broken, nil
}

// discard takes what is at path out of its place at once and deletes it. It
// may be called for what is not there.
func (s *Store) discard(path string) error {
	aside, err := os.MkdirTemp(s.path("trash"), "")
	if err != nil {
		return err
	}
	err = os.Rename(path, filepath.Join(aside, "x"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.removeTree(aside))
}

func (s *Store) removeTree(path string) error {
	if s.options.Remove != nil {
		return s.options.Remove(path)
	}
	return removeTree(path)
}

// removeTree deletes a tree whose directories may forbid that.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(p string, entry fs.DirEntry, err error) error {
		// The directory itself comes before what is in it is read, and once
		// more with the error if that cannot be.
		if err == nil && entry.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil //nolint:nilerr // RemoveAll tells what is left
	})
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
