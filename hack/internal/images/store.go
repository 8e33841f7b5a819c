package images

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// own is the code that builds, so that a change of it is a change of the input.
//
//go:embed *.go
var own embed.FS

const tagsAnnotation = "dev.locald.test.tags"

// Store is a directory with the built images as an OCI layout, and a stamp of
// what they were built from.
type Store struct{ Dir string }

// Default is the store in the user's cache directory.
func Default() (Store, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return Store{}, err
	}
	return Store{filepath.Join(cache, "locald-testimages")}, nil
}

// Fresh reports whether the store was built from the inputs as they are.
func (s Store) Fresh(inputs string) bool {
	stamp, err := os.ReadFile(filepath.Join(s.Dir, "stamp"))
	return err == nil && string(stamp) == inputs
}

// Rebuild replaces what the store holds. ErrNoPostgres comes after everything
// else has been stored.
func (s Store) Rebuild(ctx context.Context, inputs string) error {
	for _, stale := range []string{"stamp", "oci"} {
		if err := os.RemoveAll(filepath.Join(s.Dir, stale)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	built, incomplete := Build(ctx, s.Dir)
	if incomplete != nil && !errors.Is(incomplete, ErrNoPostgres) {
		return incomplete
	}
	oci, err := layout.Write(filepath.Join(s.Dir, "oci"), empty.Index)
	if err != nil {
		return err
	}
	for _, image := range built {
		tags := map[string]string{tagsAnnotation: strings.Join(image.Tags, " ")}
		if err := oci.AppendImage(image.Image, layout.WithAnnotations(tags)); err != nil {
			return fmt.Errorf("%s: %w", image.Tags[0], err)
		}
	}
	if incomplete != nil {
		return incomplete
	}
	return os.WriteFile(filepath.Join(s.Dir, "stamp"), []byte(inputs), 0o600)
}

// Images returns what the store holds.
func (s Store) Images() ([]Image, error) {
	oci, err := layout.FromPath(filepath.Join(s.Dir, "oci"))
	if err != nil {
		return nil, fmt.Errorf("no test images in %s; go run ./hack/testimages: %w", s.Dir, err)
	}
	index, err := oci.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var all []Image
	for _, entry := range manifest.Manifests {
		image, err := oci.Image(entry.Digest)
		if err != nil {
			return nil, err
		}
		all = append(all, Image{strings.Fields(entry.Annotations[tagsAnnotation]), image})
	}
	return all, nil
}

// Inputs is a digest of everything the images are made of: the sources under
// hack, and name, size and time of the machine's own files.
func Inputs(sources fs.FS) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, goruntime.Version(), goruntime.GOARCH)
	for _, tree := range []fs.FS{sources, own} {
		if err := digest(sum, tree); err != nil {
			return "", err
		}
	}
	home, major, err := postgresHome()
	if err == nil {
		for _, dir := range []string{home, "/usr/share/postgresql/" + major} {
			if err := stamp(sum, dir); err != nil {
				return "", err
			}
		}
	}
	programs, err := libraries([]string{"/bin/dash", "/bin/ls", "/bin/sed"})
	if err != nil {
		return "", err
	}
	var files []string
	for _, p := range programs {
		files = append(files, p)
	}
	slices.Sort(files)
	for _, p := range files {
		if err := stamp(sum, p); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func digest(w io.Writer, tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(p string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := fs.ReadFile(tree, p)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s %d\n%s", p, len(content), content)
		return err
	})
}

func stamp(w io.Writer, root string) error {
	return filepath.WalkDir(root, func(p string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		stat, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(w, p, stat.Size(), stat.ModTime().UnixNano())
		return nil
	})
}
