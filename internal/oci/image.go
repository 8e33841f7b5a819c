package oci

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Image is all that running one needs. Its layers stay where they are as long
// as somebody has a lease on its Digest.
type Image struct {
	Reference string    // as it was asked for
	Digest    string    // of the manifest for this platform
	Platform  string    // "linux/amd64"
	Created   time.Time // zero when the image does not say
	Size      int64     // bytes of all files of all layers
	Config    dockerspec.DockerOCIImageConfig
	// Layers are directories for an overlay's lowerdir, the top one first, none
	// twice. An image may have none. The top one's mode and owner are those that
	// the root should have.
	Layers []string
	// Notes say what was left out of the layers: "device nodes".
	Notes []string
}

// Image returns what the store has for a reference, without asking a registry.
// The error has the kind NotFound when that is not everything.
func (s *Store) Image(image string) (*Image, error) {
	r, err := parse(image)
	if err != nil {
		return nil, s.about(err, r, "")
	}
	t, ok, err := s.tagged(r.full)
	if err != nil {
		return nil, s.about(stored(err), r, "")
	}
	var found *Image
	if ok {
		found, err = s.image(r, t.Digest)
	}
	if err == nil && found == nil {
		err = &Error{Kind: NotFound, Image: r.text, Hint: "locald up", Err: errNotHere}
		return nil, err
	}
	return found, s.about(err, r, "")
}

// image puts together what the store has for a manifest. It returns nil when
// anything is missing.
func (s *Store) image(r reference, digest v1.Hash) (*Image, error) {
	got, err := s.described(digest)
	if got == nil || err != nil {
		return nil, err
	}
	image := &Image{Reference: r.text, Digest: digest.String(), Config: got.configuration.Config}
	p := got.configuration.Platform
	image.Platform = v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}.String()
	if got.configuration.Created != nil {
		image.Created = *got.configuration.Created
	}
	seen, hidden := map[v1.Hash]bool{}, false
	for i := len(got.layers) - 1; i >= 0; i-- {
		diffID := got.layers[i].diffID
		if seen[diffID] {
			continue // what the upper one has, the lower one cannot add
		}
		seen[diffID] = true
		c, err := s.unpacked(diffID)
		if c == nil || err != nil {
			return nil, stored(err)
		}
		image.Size += c.Size
		if hidden {
			continue
		}
		hidden = c.Opaque
		image.Layers = append(image.Layers, s.path("layers", diffID.Hex, "fs"))
		image.Notes = append(image.Notes, c.Notes...)
	}
	return image, nil
}

// described reads a stored manifest and its configuration, nil when they are
// not there.
func (s *Store) described(digest v1.Hash) (*resolved, error) {
	content, err := s.blob(digest)
	if content == nil || err != nil {
		return nil, stored(err)
	}
	m, err := parseManifest(content)
	if err != nil {
		return nil, err
	}
	got := &resolved{digest: digest, manifest: content, configDigest: m.Config.Digest}
	if got.config, err = s.blob(m.Config.Digest); got.config == nil || err != nil {
		return nil, stored(err)
	}
	return got, got.understand(m)
}
