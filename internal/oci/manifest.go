package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// thisMachine is the platform that images are chosen for.
func thisMachine() v1.Platform {
	p := v1.Platform{OS: "linux", Architecture: goruntime.GOARCH}
	switch p.Architecture {
	case "arm64":
		p.Variant = "v8"
	case "arm":
		p.Variant = "v7"
	}
	return p
}

// variants are those that a machine of p runs, the best first.
func variants(p v1.Platform) []string {
	switch {
	case p.Architecture == "arm64" && p.Variant == "v8":
		return []string{"v8", ""}
	case p.Architecture == "arm" && p.Variant == "v7":
		return []string{"v7", "v6", "v5", ""}
	case p.Architecture == "amd64" && p.Variant == "":
		return []string{"", "v1"}
	}
	return []string{p.Variant, ""}
}

// resolved is an image as the registry describes it: every part of it has the
// digest that the part before names.
type resolved struct {
	digest        v1.Hash
	manifest      []byte
	config        []byte
	configDigest  v1.Hash
	configuration dockerspec.DockerOCIImage
	layers        []layer // bottom first
}

// layer is one layer of an image: what is downloaded, and what its tar is.
type layer struct {
	blob   v1.Hash
	size   int64
	diffID v1.Hash
}

func (l layer) short() string { return shortened(l.blob) }

func shortened(h v1.Hash) string { return h.Hex[:min(12, len(h.Hex))] }

// resolve asks what the reference stands for, once: everything after that is
// asked for by digest, so a tag that moves makes no mixture.
func (c *session) resolve(ctx context.Context, s *Store, tell func(reason string)) (*resolved, error) {
	identifier := c.ref.identifier
	for range 4 { // an index in an index is allowed, and has to end
		content, digest, mediaType, err := c.manifest(ctx, s, identifier, tell)
		if err != nil {
			return nil, err
		}
		switch kindOf(content, mediaType) {
		case listing:
			next, err := choose(content, s.platform)
			if err != nil {
				return nil, err
			}
			identifier = next.String()
		case single:
			return c.describe(ctx, s, content, digest, tell)
		case old:
			return nil, fail(Unsupported, "its manifest is of schema 1, which nothing makes any more")
		default:
			return nil, fail(Unsupported, "%q is no image", mediaType)
		}
	}
	return nil, fail(Corrupt, "its indexes point at indexes")
}

type shape int

const (
	unknown shape = iota
	single
	listing
	old
)

// kindOf goes by what the manifest says it is, then by what the registry says,
// then by what is in it: media types are often left out or wrong.
func kindOf(content []byte, said string) shape {
	var head struct {
		MediaType     types.MediaType `json:"mediaType"`
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     []struct{}      `json:"manifests"`
		Config        *struct{}       `json:"config"`
	}
	if json.Unmarshal(content, &head) != nil {
		return unknown
	}
	said, _, _ = strings.Cut(said, ";")
	for _, t := range []types.MediaType{head.MediaType, types.MediaType(said)} {
		switch {
		case t.IsIndex():
			return listing
		case t.IsImage():
			return single
		case t == types.DockerManifestSchema1 || t == types.DockerManifestSchema1Signed:
			return old
		}
	}
	switch {
	case head.SchemaVersion == 1:
		return old
	case head.Manifests != nil:
		return listing
	case head.Config != nil:
		return single
	}
	return unknown
}

var accepted = []string{
	string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1), string(types.DockerManifestSchema2),
}

// manifest asks for a manifest and sees that it is the one that was asked for.
// One that is stored already is not asked for again.
func (c *session) manifest(ctx context.Context, s *Store, identifier string, tell func(reason string)) (content []byte, digest v1.Hash, mediaType string, err error) {
	want, byDigest := v1.Hash{}, strings.Contains(identifier, ":")
	if byDigest {
		if want, err = hashOf(identifier); err != nil {
			return nil, want, "", err
		}
	}
	if byDigest && s.dir != "" { // else somebody else stores it
		if content, err = s.blob(want); content != nil || err != nil {
			return content, want, "", stored(err)
		}
	}
	err = s.repeat(ctx, true, tell, func() error {
		content, mediaType, err = c.read(ctx, "manifests", identifier, accepted)
		return err
	})
	if err != nil {
		return nil, want, "", c.told(err)
	}
	digest = digestOf(content)
	if byDigest && digest != want {
		return nil, digest, "", fail(Corrupt, "the manifest has the digest %s and not %s", digest, want)
	}
	return content, digest, mediaType, nil
}

func hashOf(text string) (v1.Hash, error) {
	h, err := v1.NewHash(text)
	if err != nil || h.Algorithm != "sha256" {
		return h, fail(Unsupported, "%q is no sha256 digest", text)
	}
	return h, nil
}

// choose picks what suits the machine out of an index.
func choose(content []byte, platform v1.Platform) (v1.Hash, error) {
	index, err := v1.ParseIndexManifest(bytes.NewReader(content))
	if err != nil {
		return v1.Hash{}, fail(Corrupt, "its index cannot be read: %w", err)
	}
	for _, variant := range variants(platform) {
		for _, m := range index.Manifests {
			p := m.Platform
			if p != nil && p.OS == platform.OS && p.Architecture == platform.Architecture && p.Variant == variant {
				return checked(m.Digest)
			}
		}
	}
	var has []string
	for _, m := range index.Manifests {
		switch {
		case m.Platform == nil && len(index.Manifests) == 1:
			return checked(m.Digest) // what it is for is in its configuration
		case m.Platform == nil || m.Platform.OS == "unknown": // an attestation
		default:
			has = append(has, m.Platform.String())
		}
	}
	slices.Sort(has)
	if len(has) == 0 {
		return v1.Hash{}, fail(NoPlatform, "it has nothing for %s: its index names no platform", platform)
	}
	return v1.Hash{}, fail(NoPlatform, "it has nothing for %s, only %s", platform, strings.Join(slices.Compact(has), ", "))
}

func checked(h v1.Hash) (v1.Hash, error) { return hashOf(h.String()) }

// describe reads a manifest and fetches its configuration.
func (c *session) describe(ctx context.Context, s *Store, content []byte, digest v1.Hash, tell func(reason string)) (*resolved, error) {
	m, err := parseManifest(content)
	if err != nil {
		return nil, err
	}
	r := &resolved{digest: digest, manifest: content, configDigest: m.Config.Digest}
	if r.config, err = s.blob(m.Config.Digest); err != nil {
		return nil, stored(err)
	}
	if r.config == nil {
		err = s.repeat(ctx, true, tell, func() error {
			r.config, _, err = c.read(ctx, "blobs", m.Config.Digest.String(), nil)
			return err
		})
		if err != nil {
			return nil, c.told(err)
		}
		if got := digestOf(r.config); got != m.Config.Digest {
			return nil, fail(Corrupt, "its configuration has the digest %s and not %s", got, m.Config.Digest)
		}
	}
	if err := r.understand(m); err != nil {
		return nil, err
	}
	p := r.configuration.Platform
	if p.OS != "" && p.OS != s.platform.OS || p.Architecture != "" && p.Architecture != s.platform.Architecture ||
		!slices.Contains(variants(s.platform), p.Variant) {
		return nil, fail(NoPlatform, "it is for %s and this machine is %s",
			v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}, s.platform)
	}
	return r, nil
}

func parseManifest(content []byte) (*v1.Manifest, error) {
	m, err := v1.ParseManifest(bytes.NewReader(content))
	if err != nil {
		return nil, fail(Corrupt, "its manifest cannot be read: %w", err)
	}
	if _, err := checked(m.Config.Digest); err != nil {
		return nil, err
	}
	switch m.Config.MediaType {
	case types.OCIConfigJSON, types.DockerConfigJSON, "":
	default:
		return nil, fail(Unsupported, "%q is no container image", m.Config.MediaType)
	}
	for _, l := range m.Layers {
		if _, err := checked(l.Digest); err != nil {
			return nil, err
		}
		if l.Size <= 0 || l.Size > 1<<40 {
			return nil, fail(Corrupt, "its layer %s has %d bytes", l.Digest, l.Size)
		}
		if strings.Contains(string(l.MediaType), "encrypted") {
			return nil, fail(Unsupported, "its layer %s is encrypted", l.Digest)
		}
	}
	return m, nil
}

// understand reads the configuration and puts layers and tars side by side.
func (r *resolved) understand(m *v1.Manifest) error {
	if err := json.Unmarshal(r.config, &r.configuration); err != nil {
		return fail(Corrupt, "its configuration cannot be read: %w", err)
	}
	tars := r.configuration.RootFS.DiffIDs
	if len(tars) != len(m.Layers) {
		return fail(Corrupt, "its manifest has %d layers and its configuration %d", len(m.Layers), len(tars))
	}
	for i, l := range m.Layers {
		diffID, err := hashOf(string(tars[i]))
		if err != nil {
			return fmt.Errorf("layer %d of its configuration: %w", i+1, err)
		}
		r.layers = append(r.layers, layer{l.Digest, l.Size, diffID})
	}
	return nil
}
