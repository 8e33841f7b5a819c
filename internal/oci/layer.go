package oci

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// contents is what layer.json holds. It is in its place only when everything
// else of the layer is.
type contents struct {
	DiffID v1.Hash  `json:"diffID"`
	Size   int64    `json:"size"`            // bytes of all files
	Files  int      `json:"files"`           // entries of all sorts
	Opaque bool     `json:"opaque"`          // hides all layers below
	Notes  []string `json:"notes,omitempty"` // what was left out
	Boot   string   `json:"boot,omitempty"`  // in which it was made; empty once it was found whole in a later one
}

const manifestOfLayer = "layer.json"

// unpacked returns what a layer that is in the store holds, nil when it is not
// there or was damaged by a power cut.
func (s *Store) unpacked(diffID v1.Hash) (*contents, error) {
	var c contents
	ok, err := readJSON(s.path("layers", diffID.Hex, manifestOfLayer), &c)
	if err != nil || !ok || c.DiffID != diffID {
		return nil, err
	}
	files := s.path("layers", diffID.Hex, "fs")
	if _, err := os.Lstat(files); err != nil {
		return nil, nil //nolint:nilerr // it is made anew
	}
	if c.Boot == "" || c.Boot == s.boot {
		return &c, nil
	}
	if n, size := measure(files); n != c.Files || size != c.Size {
		return nil, nil
	}
	c.Boot = ""
	_ = s.placeJSON(c, "layers", diffID.Hex, manifestOfLayer) // or it is measured again
	return &c, nil
}

// measure counts what is below dir and adds up its files. What is in closed
// directories does not count, neither now nor later.
func measure(dir string) (files int, size int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a closed directory
		}
		files++
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return files, size
}

// make brings one layer, whose lock is held. resumed says whether some of it
// was left by an earlier download.
func (p *pull) make(ctx context.Context, l layer) (resumed bool, err error) {
	s := p.store
	work, part := s.path("tmp", "layer-"+l.diffID.Hex), s.path("partial", l.diffID.Hex+"-"+l.blob.Hex)
	if err := s.removeTree(work); err != nil {
		return false, stored(err)
	}
	if err := os.MkdirAll(work+"/fs", 0o700); err != nil {
		return false, stored(err)
	}
	file, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, stored(errors.Join(err, s.removeTree(work)))
	}
	defer file.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d, err := newDownload(ctx, p.session, s, l, file, func(one Progress) {
		one.Layer, one.Total = l.short(), l.size
		p.teller.tell(one)
	})
	if err == nil {
		err = p.fill(d, work, cancel)
	}
	switch {
	case err == nil:
		err = s.install(work, l.diffID)
	case IsKind(err, Network) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return d.resumed(), errors.Join(err, s.removeTree(work)) // the part is good and is kept
	}
	return d != nil && d.resumed(), errors.Join(err, s.removeTree(work), os.Remove(part))
}

// install moves a finished layer to its place.
func (s *Store) install(work string, diffID v1.Hash) error {
	place := s.path("layers", diffID.Hex)
	if err := s.discard(place); err != nil { // one that was not whole
		return stored(err)
	}
	return stored(os.Rename(work, place))
}

// fill unpacks while it downloads, and leaves a layer in work only if every
// digest is right.
func (p *pull) fill(d *download, work string, cancel context.CancelFunc) error {
	blob := readAhead(d)
	defer func() {
		cancel()
		blob.close()
		d.hangUp()
	}()
	got, err := p.unpackStream(d, blob, work)
	var own *Error
	var file *fs.PathError
	switch {
	case errors.As(err, &own) || d.ctx.Err() != nil:
		return err
	case full(err):
		return &Error{Kind: DiskFull, Err: fmt.Errorf("no room to unpack it: %w", err)}
	case errors.As(err, &file):
		return &Error{Kind: Storage, Err: err}
	}
	// What follows the end of the tar decides over the digest, and the digest
	// over whose fault a tar is that cannot be read.
	_, rest := io.Copy(io.Discard, blob)
	switch {
	case rest != nil:
		return rest
	case err != nil:
		return &Error{Kind: Corrupt, Err: fmt.Errorf("it cannot be unpacked: %w", err)}
	}
	p.teller.tell(Progress{Layer: d.layer.short(), Phase: Verifying, Current: d.layer.size, Total: d.layer.size})
	if got.DiffID != d.layer.diffID {
		return fail(Corrupt, "its files make %s and the configuration says %s", got.DiffID, d.layer.diffID)
	}
	got.Boot = p.store.boot
	got.Files, got.Size = measure(work + "/fs")
	content, err := json.Marshal(got)
	if err == nil {
		err = os.WriteFile(work+"/"+manifestOfLayer, content, 0o600)
	}
	return stored(err)
}

// unpackStream unpacks a blob, compressed or not, and takes the digest of its
// tar.
func (p *pull) unpackStream(d *download, blob io.Reader, work string) (*contents, error) {
	plain, shut, err := decompress(blob)
	if err != nil {
		return nil, err
	}
	defer shut()
	tar := readAhead(plain)
	defer tar.close()
	sum := sha256.New()
	hashed := io.TeeReader(tar, sum)
	own := p.store.options.Own
	got, owners, err := unpack(d.ctx, work+"/fs", hashed, p.store.privileged, own != nil)
	if err == nil && own != nil {
		if err := own(work+"/fs", owners); err != nil {
			return nil, fail(Unsupported, "its files cannot be given to whom they belong: %w", err)
		}
	}
	if err != nil {
		return nil, err
	}
	p.teller.tell(Progress{Layer: d.layer.short(), Phase: Unpacking, Current: d.layer.size, Total: d.layer.size})
	if _, err := io.Copy(io.Discard, hashed); err != nil {
		return nil, err
	}
	got.DiffID = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	return got, nil
}

// decompress goes by the first bytes, since media types are not always right.
func decompress(from io.Reader) (plain io.Reader, shut func(), err error) {
	buffered := bufio.NewReaderSize(from, 64<<10)
	magic, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		return z, func() {}, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return buffered, func() {}, nil
}
