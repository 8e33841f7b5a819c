package main

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/locald/locald/hack/faultregistry"
	"github.com/locald/locald/hack/internal/images"
)

// served are the images, by their whole names, and the registry that has them.
type served struct {
	*faultregistry.Registry
	shell, postgres string
}

// serve serves images of which no engine has any layer, since engines share
// layers between images and tests use the same.
func serve() (*served, error) {
	store, err := images.Default()
	if err != nil {
		return nil, err
	}
	all, err := store.Images()
	if err != nil {
		return nil, err
	}
	registry, err := faultregistry.Listen("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &served{Registry: registry}
	if s.shell, err = s.push(all, "locald-test/shell:", "bench/shell:1"); err == nil {
		s.postgres, err = s.push(all, "locald-test/postgres:", "bench/postgres:1")
	}
	if err != nil {
		return nil, errors.Join(err, registry.Close())
	}
	return s, nil
}

func (s *served) push(all []images.Image, prefix, tag string) (string, error) {
	for _, image := range all {
		if !slices.ContainsFunc(image.Tags, func(t string) bool { return strings.HasPrefix(t, prefix) }) {
			continue
		}
		unlike, err := renewed(image.Image)
		if err != nil {
			return "", err
		}
		return s.Push(tag, unlike)
	}
	return "", fmt.Errorf("no image %s…: go run ./hack/testimages", prefix)
}

// renewed is the image with a file more in each layer, which nobody else has.
func renewed(image v1.Image) (v1.Image, error) {
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	var unlike []v1.Layer
	for _, l := range layers {
		text, err := longer(l)
		if err != nil {
			return nil, err
		}
		made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }, tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		unlike = append(unlike, made)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.History, file.RootFS.DiffIDs = nil, nil
	base, err := mutate.ConfigFile(empty.Image, file)
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(base, unlike...)
}

func longer(l v1.Layer) ([]byte, error) {
	from, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer from.Close()
	var to bytes.Buffer
	w := tar.NewWriter(&to)
	for r := tar.NewReader(from); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.Copy(w, r); err != nil {
			return nil, err
		}
	}
	mark := rand.Text()
	if err := w.WriteHeader(&tar.Header{Name: "bench-" + mark, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		return nil, err
	}
	err = w.Close()
	return to.Bytes(), err
}
