package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/locald/locald/internal/oci"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/outer"
)

// image is one that is unpacked.
type image struct {
	name   string // as containerd has it
	chain  string // the snapshot of its layers
	config dockerspec.DockerOCIImageConfig
}

// Prepare sees to it that the image is there, as spec.Image.Pull says.
func (r *Runtime) Prepare(ctx context.Context, spec runtime.Spec, report func(runtime.Progress)) error {
	if err := check(spec); err != nil {
		return err
	}
	e, err := r.connect(ctx)
	if err != nil {
		return err
	}
	if spec.Image.Pull != runtime.PullAlways {
		found, err := e.image(ctx, spec.Image.Name)
		if err != nil || found != nil {
			return err
		}
		if spec.Image.Pull == runtime.PullNever {
			return absent(spec)
		}
	}
	_, err = r.pulls.Join(ctx, spec.Image.Name, report, func(ctx context.Context, layers *runtime.Layers) (struct{}, error) {
		return struct{}{}, e.pull(ctx, spec.Image.Name, r.options.Images, layers)
	})
	return err
}

// absent is the error for an image that must be there and is not.
func absent(spec runtime.Spec) error {
	return &runtime.Fault{Code: "image_pull", Hint: "--pull missing", Err: fmt.Errorf("image %s is not on this machine", spec.Image.Name)}
}

// image returns what containerd has for a name, unpacked; nil when it does not
// have all of it.
func (e *engine) image(ctx context.Context, text string) (*image, error) {
	name, err := oci.FullName(text)
	if err != nil {
		return nil, imageFault(err)
	}
	found, err := e.GetImage(ctx, name)
	if errdefs.IsNotFound(native(err)) {
		return nil, nil
	}
	if err != nil {
		return nil, e.fault(ctx, "image "+text, err)
	}
	there, config, err := e.configOf(ctx, found)
	if errdefs.IsNotFound(err) { // somebody has removed a part of it
		return nil, nil
	}
	if err == nil && !there {
		err = found.Unpack(ctx, e.snapshotter)
	}
	if err != nil {
		return nil, e.fault(ctx, "image "+text, err)
	}
	return &image{name: name, chain: identity.ChainID(config.RootFS.DiffIDs).String(), config: config.Config}, nil
}

func (e *engine) configOf(ctx context.Context, found client.Image) (unpacked bool, config dockerspec.DockerOCIImage, err error) {
	if unpacked, err = found.IsUnpacked(ctx, e.snapshotter); err != nil {
		return false, config, native(err)
	}
	at, err := found.Config(ctx)
	if err != nil {
		return false, config, native(err)
	}
	text, err := content.ReadBlob(ctx, e.ContentStore(), at)
	if err != nil {
		return false, config, native(err)
	}
	return unpacked, config, json.Unmarshal(text, &config)
}

// imageFault is what is said of images as the contract's.
func imageFault(err error) error {
	return outer.ImageFault(err, "ctr -n "+Namespace+" images ls, and df -h")
}

// pull brings an image, and goes on from what came before.
func (e *engine) pull(ctx context.Context, text string, o oci.Options, layers *runtime.Layers) error {
	name, err := oci.FullName(text)
	if err != nil {
		return imageFault(err)
	}
	p := &pull{engine: e, layers: layers, parts: map[string]bool{}}
	if p.registry, err = oci.Dial(ctx, text, o, p.again); err == nil {
		_, err = e.Pull(ctx, name, client.WithPullUnpack, client.WithPullSnapshotter(e.snapshotter),
			client.WithResolver(p), client.WithImageHandler(images.HandlerFunc(p.seen)))
		err = p.fault(ctx, err)
	}
	if err == nil {
		p.layers.Finish()
	}
	return imageFault(err)
}

// pull is one image on its way. containerd's client asks it for what it needs.
type pull struct {
	engine   *engine
	registry *oci.Registry
	layers   *runtime.Layers

	mu    sync.Mutex
	parts map[string]bool // the digests of layers
}

var _ remotes.Resolver = (*pull)(nil)

func (p *pull) again(reason string) { p.layers.Retry("", reason) }

// Resolve asks what the name stands for now.
func (p *pull) Resolve(ctx context.Context, name string) (string, ocispec.Descriptor, error) {
	content, hash, mediaType, err := p.registry.Manifest(ctx, "", p.again)
	if err != nil {
		return "", ocispec.Descriptor{}, &partError{"", err}
	}
	mediaType, _, _ = strings.Cut(mediaType, ";")
	var said struct{ MediaType string }
	if json.Unmarshal(content, &said) == nil && said.MediaType != "" {
		mediaType = said.MediaType
	}
	return name, ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(hash), Size: int64(len(content))}, nil
}

// Fetcher is what the parts are asked of.
func (p *pull) Fetcher(context.Context, string) (remotes.Fetcher, error) {
	return remotes.FetcherFunc(p.fetch), nil
}

// Pusher is for others.
func (p *pull) Pusher(context.Context, string) (remotes.Pusher, error) {
	return nil, errors.ErrUnsupported
}

// seen is told of each part of the image before it is fetched.
func (p *pull) seen(ctx context.Context, part ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if !images.IsLayerType(part.MediaType) {
		return nil, nil
	}
	p.mu.Lock()
	p.parts[part.Digest.String()] = true
	p.mu.Unlock()
	if _, err := p.engine.ContentStore().Info(ctx, part.Digest); err != nil { // if containerd cannot be asked, fetching says so
		p.layers.Set(short(part), runtime.Waiting, 0, part.Size)
	}
	return nil, nil
}

// short is how a layer is shown; empty for what is no layer.
func short(part ocispec.Descriptor) string {
	if !images.IsLayerType(part.MediaType) {
		return ""
	}
	return part.Digest.Encoded()[:12]
}

func (p *pull) fetch(ctx context.Context, part ocispec.Descriptor) (io.ReadCloser, error) {
	if images.IsManifestType(part.MediaType) || images.IsIndexType(part.MediaType) {
		content, _, _, err := p.registry.Manifest(ctx, part.Digest.String(), p.again)
		if err != nil {
			return nil, &partError{"", err}
		}
		return io.NopCloser(bytes.NewReader(content)), nil
	}
	blob, err := p.registry.Blob(ctx, part.Digest.String(), part.Size, func(now oci.Progress) { p.told(part, now) })
	if err != nil {
		return nil, &partError{short(part), err}
	}
	return &body{blob, short(part)}, nil
}

func (p *pull) told(part ocispec.Descriptor, now oci.Progress) {
	layer := short(part)
	switch {
	case now.Phase == oci.Retrying:
		p.layers.Retry(layer, now.Reason)
	case layer == "":
	case now.Current == part.Size:
		p.layers.Set(layer, runtime.Unpacking, 0, 0)
	default:
		p.layers.Set(layer, runtime.Downloading, now.Current, part.Size)
	}
}

// body is a part on its way, whose errors say what they are about.
type body struct {
	*oci.Blob
	layer string
}

func (b *body) Read(to []byte) (int, error) {
	n, err := b.Blob.Read(to)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &partError{b.layer, err}
	}
	return n, err
}

// partError is an error of the registry, about a layer if it is not empty.
type partError struct {
	layer string
	err   error
}

func (e *partError) Error() string { return e.err.Error() }
func (e *partError) Unwrap() error { return e.err }

// fault tells what the registry has to do with an error, what containerd, and what
// came.
func (p *pull) fault(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if part, ok := errors.AsType[*partError](err); ok {
		return p.registry.Fault(part.err, part.layer)
	}
	if err = p.engine.fault(ctx, "pull", err); errors.Is(err, runtime.ErrUnavailable) {
		return err
	}
	text, layer := err.Error(), ""
	p.mu.Lock()
	for part := range p.parts {
		if strings.Contains(text, part) {
			layer = strings.TrimPrefix(part, "sha256:")[:12]
		}
	}
	p.mu.Unlock()
	told := &oci.Error{Kind: oci.Storage, Err: err}
	switch {
	case strings.Contains(text, "no space left on device"), strings.Contains(text, "disk quota exceeded"):
		told.Kind = oci.DiskFull
	case strings.Contains(text, "no match for platform"):
		told.Kind, told.Err = oci.NoPlatform, fmt.Errorf("it has nothing for %s", platforms.DefaultString())
	case strings.Contains(text, "unexpected commit digest"), strings.Contains(text, "failed size validation"), strings.Contains(text, "wrong diff id"):
		told.Kind, told.Err = oci.Corrupt, errors.New("its bytes are not those of its digest")
		p.drop(ctx)
	case strings.Contains(text, "failed to extract layer"):
		why := text[strings.LastIndex(text, ": ")+2:]
		told.Kind, told.Err = oci.Corrupt, fmt.Errorf("containerd cannot unpack it: %s", why)
	}
	return p.registry.Fault(told, layer)
}

// drop throws away what has come of the layers that are not whole: containerd would
// keep bytes that are wrong, and find them wrong again.
func (p *pull) drop(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for part := range p.parts {
		_ = p.engine.ContentStore().Abort(ctx, "layer-"+part) // of most there is nothing
	}
}
