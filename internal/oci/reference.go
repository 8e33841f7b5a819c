package oci

import (
	"net"
	"net/url"

	distribution "github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	_ "github.com/opencontainers/go-digest" // its algorithms are what a digest in a reference may use
)

const dockerHub = "docker.io"

// reference is an image's name, understood.
type reference struct {
	text       string // as it was given
	full       string // with registry, and tag or digest: what the store knows it by
	domain     string // the registry as people write it
	path       string
	identifier string // the tag, or the digest where there is one
	repository name.Repository
}

// parse understands an image's name as Docker does: without a registry it is
// Docker Hub's, without a tag it is latest, and a digest counts more than a tag.
func parse(text string) (reference, error) {
	r := reference{text: text}
	named, err := distribution.ParseNormalizedNamed(text)
	if err != nil {
		return r, fail(InvalidReference, "it is not an image's name: %w", err)
	}
	named = distribution.TagNameOnly(named)
	r.domain, r.path = distribution.Domain(named), distribution.Path(named)
	switch n := named.(type) {
	case distribution.Digested:
		if n.Digest().Algorithm() != "sha256" {
			return r, fail(Unsupported, "a digest by %s is not served, sha256 is", n.Digest().Algorithm())
		}
		r.identifier = n.Digest().String()
		r.full = r.domain + "/" + r.path + "@" + r.identifier
	case distribution.Tagged:
		r.identifier = n.Tag()
		r.full = r.domain + "/" + r.path + ":" + r.identifier
	}
	var options []name.Option
	if loopback(r.domain) {
		options = append(options, name.Insecure)
	}
	r.repository, err = name.NewRepository(r.domain+"/"+r.path, options...)
	if err != nil {
		return r, fail(InvalidReference, "it is not an image's name: %w", err)
	}
	return r, nil
}

// Reference is the name by which a store knows an image: with registry, and tag
// or digest.
func Reference(image string) (string, error) {
	r, err := parse(image)
	return r.full, err
}

// familiar is a whole name as people write it.
func familiar(full string) string {
	named, err := distribution.ParseNormalizedNamed(full)
	if err != nil {
		return full
	}
	return distribution.FamiliarString(named)
}

// host is where the registry answers.
func (r reference) host() string {
	if r.domain == dockerHub {
		return "registry-1.docker.io"
	}
	return r.domain
}

func (r reference) scheme() string {
	if loopback(r.domain) {
		return "http"
	}
	return "https"
}

// loopback reports whether host[:port] is this machine, seen from itself: the
// one registry that may be spoken to without TLS.
func loopback(host string) bool {
	u, err := url.Parse("//" + host)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
