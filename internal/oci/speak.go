package oci

import (
	"context"
	"errors"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Registry speaks to the registry of one image, for whoever stores images
// otherwise than in a Store. It has the same credentials, the same caution, the
// same patience and the same words.
type Registry struct {
	store   *Store
	ref     reference
	session *session
}

// Dial finds out how the image's registry wants to be spoken to, and logs in. tell
// gets the reason when it tries again. Any error is an *Error or wraps that of
// ctx.
func Dial(ctx context.Context, image string, o Options, tell func(reason string)) (*Registry, error) {
	g := &Registry{store: &Store{options: o.complete()}}
	var err error
	if g.ref, err = parse(image); err != nil {
		return nil, g.store.about(err, g.ref, "")
	}
	err = g.store.repeat(ctx, false, tell, func() error {
		g.session, err = g.store.dial(ctx, g.ref)
		return err
	})
	return g, g.store.about(err, g.ref, "")
}

// FullName is an image's name with its registry, and tag or digest.
func FullName(image string) (string, error) {
	r, err := parse(image)
	return r.full, new(Store).about(err, r, "")
}

// Manifest asks for a manifest or an index by its digest, without one for what the
// image's name stands for.
func (g *Registry) Manifest(ctx context.Context, digest string, tell func(reason string)) (content []byte, hash, mediaType string, err error) {
	if digest == "" {
		digest = g.ref.identifier
	}
	content, found, mediaType, err := g.session.manifest(ctx, g.store, digest, tell)
	return content, found.String(), mediaType, g.Fault(err, "")
}

// Blob reads another part of the image. When the connection breaks it goes on where
// it was. Whether the bytes are those of the digest is for the reader to see.
// tell is called while it reads, with neither layer nor total.
func (g *Registry) Blob(ctx context.Context, digest string, size int64, tell func(Progress)) (*Blob, error) {
	hash, err := v1.NewHash(digest)
	if err != nil {
		return nil, g.Fault(fail(Unsupported, "digest %q: %w", digest, err), "")
	}
	return &Blob{g, &download{ctx: ctx, session: g.session, layer: layer{blob: hash, size: size}, tell: tell, tries: tries{store: g.store}}}, nil
}

// Fault says what an error is about: a layer, if one is named by the first digits
// of its digest.
func (g *Registry) Fault(err error, layer string) error { return g.store.about(err, g.ref, layer) }

// Blob is a part of an image on its way.
type Blob struct {
	registry *Registry
	download *download
}

// Read reads on.
func (b *Blob) Read(p []byte) (int, error) {
	d := b.download
	if len(p) == 0 || d.offset == d.layer.size {
		return 0, io.EOF
	}
	n, err := d.receive(p[:min(int64(len(p)), d.layer.size-d.offset)])
	d.offset += int64(n)
	if err == nil {
		d.tell(Progress{Phase: Downloading, Current: d.offset})
	}
	return n, err
}

// Seek sets from where Read goes on, counted from the beginning.
func (b *Blob) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset < 0 || offset > b.download.layer.size {
		return 0, errors.ErrUnsupported
	}
	b.download.hangUp()
	b.download.offset = offset
	return offset, nil
}

// Close lets go of the registry.
func (b *Blob) Close() error {
	b.download.hangUp()
	return nil
}
