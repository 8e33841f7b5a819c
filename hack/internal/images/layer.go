package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// file is one entry of a layer: a host file, or content, or a link, or a
// directory.
type file struct {
	header tar.Header
	source string // a path of this machine
	data   []byte
}

// layer maps paths in the image, without a leading slash, to what is there.
type layer map[string]file

func (l layer) dir(p string, mode int64, owner int) {
	l[p] = file{header: tar.Header{Typeflag: tar.TypeDir, Name: p + "/", Mode: mode, Uid: owner, Gid: owner}}
}

func (l layer) text(p, content string) {
	l[p] = file{header: tar.Header{Typeflag: tar.TypeReg, Name: p, Mode: 0o644, Size: int64(len(content))}, data: []byte(content)}
}

func (l layer) link(p, target string) {
	l[p] = file{header: tar.Header{Typeflag: tar.TypeSymlink, Name: p, Linkname: target, Mode: 0o777}}
}

func (l layer) copy(p, source string) error {
	stat, err := os.Stat(source)
	if err != nil {
		return err
	}
	l[p] = file{source: source, header: tar.Header{Typeflag: tar.TypeReg, Name: p, Mode: int64(stat.Mode().Perm()), Size: stat.Size()}}
	return nil
}

// tree copies the directory root of this machine to the same path of the
// image, without what skip names.
func (l layer) tree(root string, skip func(p string) bool) error {
	return filepath.WalkDir(root, func(p string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case skip(p) && entry.IsDir():
			return fs.SkipDir
		case skip(p):
			return nil
		case entry.IsDir():
			l.dir(p[1:], 0o755, 0)
			return nil
		case entry.Type() == fs.ModeSymlink:
			return l.copyLink(root, p)
		case entry.Type().IsRegular():
			return l.copy(p[1:], p)
		}
		return nil
	})
}

// copyLink keeps a link that stays inside root, copies what another one points
// at, and leaves out one that dangles.
func (l layer) copyLink(root, p string) error {
	target, err := os.Readlink(p)
	if err != nil {
		return err
	}
	if _, err := os.Stat(p); err != nil {
		return nil
	}
	resolved := target
	if !path.IsAbs(resolved) {
		resolved = path.Join(path.Dir(p), target)
	}
	if strings.HasPrefix(resolved, root+"/") {
		l.link(p[1:], target)
		return nil
	}
	return l.copy(p[1:], p)
}

// names returns every path in order, missing parents added. Links are put
// before what lies behind them, because "bin" sorts before "bin/sh".
func (l layer) names() []string {
	links := []string{"bin", "lib", "lib64", "sbin"}
	for name := range l {
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
			if _, ok := l[parent]; !ok && !slices.Contains(links, parent) {
				l.dir(parent, 0o755, 0)
			}
		}
	}
	names := make([]string, 0, len(l))
	for name := range l {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// tar writes the layer with nothing in it that differs from build to build.
func (l layer) tar() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range l.names() {
		f := l[name]
		f.header.ModTime = time.Unix(0, 0)
		f.header.Format = tar.FormatPAX
		if err := w.WriteHeader(&f.header); err != nil {
			return nil, err
		}
		if err := f.write(w); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out.Bytes(), w.Close()
}

func (f file) write(w io.Writer) error {
	if f.source == "" {
		_, err := w.Write(f.data)
		return err
	}
	in, err := os.Open(f.source)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(w, in)
	return err
}

func (l layer) build() (v1.Layer, error) {
	raw, err := l.tar()
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.DockerLayer), tarball.WithCompressionLevel(gzip.BestSpeed))
}
