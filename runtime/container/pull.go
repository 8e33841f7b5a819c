package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// pullTries is how often a pull is tried that breaks on the way.
const pullTries = 3

// Prepare sees to it that the image is there, as spec.Image.Pull says, or builds
// it.
func (r *Runtime) Prepare(ctx context.Context, spec runtime.Spec, report func(runtime.Progress)) error {
	if err := check(spec); err != nil {
		return err
	}
	name, err := reference.ParseNormalizedNamed(spec.Image.Name)
	if err != nil {
		const hint = "an image is named like postgres:15 or localhost:5000/team/app:1"
		return invalid("config_invalid", hint, "image %s: it is not an image's name: %v", spec.Image.Name, err)
	}
	e, err := r.connect(ctx)
	if err != nil {
		return err
	}
	if err := checkBinds(spec, e.place.host); err != nil {
		return err
	}
	if spec.Image.Build != nil {
		return r.build(ctx, e, spec, report)
	}
	if spec.Image.Pull != runtime.PullAlways {
		found, err := e.image(ctx, spec)
		if err != nil || found != nil {
			return err
		}
		if spec.Image.Pull == runtime.PullNever {
			return e.absent(spec)
		}
	}
	p := &pull{e: e, image: spec.Image.Name, domain: reference.Domain(name), layers: runtime.NewLayers(spec.Image.Name, report)}
	p.auth = credentials(ctx, name)
	return p.run(ctx)
}

// absent is the error for an image that must be there and is not.
func (e *engine) absent(spec runtime.Spec) error {
	hint := e.name + " pull " + spec.Image.Name
	if spec.Image.Build != nil {
		hint = "locald restart " + spec.Service
	}
	return &runtime.Fault{
		Code: codePull, Hint: hint,
		Err: fmt.Errorf("image %s is not on this machine", spec.Image.Name),
	}
}

const codePull = "image_pull"

// image returns the configuration of the spec's image, nil when the engine
// does not have it.
func (e *engine) image(ctx context.Context, spec runtime.Spec) (*dockerspec.DockerOCIImageConfig, error) {
	ctx, done := e.watched(ctx)
	defer done()
	found, err := e.cli.ImageInspect(ctx, spec.Image.Name)
	switch {
	case e.notFound(err):
		return nil, nil
	case err != nil:
		return nil, e.fault(ctx, "image "+spec.Image.Name, err)
	case found.Config == nil:
		return &dockerspec.DockerOCIImageConfig{}, nil
	}
	return found.Config, nil
}

// pull is one image on its way.
type pull struct {
	e      *engine
	image  string
	domain string
	auth   string
	layers *runtime.Layers
}

func (p *pull) run(ctx context.Context) error {
	pause := time.Second / 2
	for try := 1; ; try++ {
		begun, err := p.try(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, runtime.ErrUnavailable) {
			return err
		}
		if try == pullTries || !passing(err, begun) {
			return p.fault(err)
		}
		p.layers.Retry("", said(err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause *= 4
	}
}

// try pulls once. begun says whether the registry had anything to give.
func (p *pull) try(ctx context.Context) (begun bool, err error) {
	ctx, done := p.e.watched(ctx)
	defer done()
	stream, err := p.e.cli.ImagePull(ctx, p.image, client.ImagePullOptions{RegistryAuth: p.auth})
	if err != nil {
		return false, p.broken(ctx, err)
	}
	defer stream.Close()
	for m, err := range stream.JSONMessages(ctx) {
		if err != nil {
			return begun, p.broken(ctx, err)
		}
		if m.Error != nil {
			return begun, errors.New(m.Error.Message)
		}
		begun = begun || m.Progress != nil
		heard(p.layers, m)
	}
	if ctx.Err() != nil {
		return begun, p.broken(ctx, ctx.Err())
	}
	p.layers.Finish()
	return true, nil
}

// broken keeps the registry's errors as they are and makes the engine's own
// absence ErrUnavailable.
func (p *pull) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil || client.IsErrConnectionFailed(err) || cerrdefs.IsInvalidArgument(err) {
		return p.e.fault(ctx, "pull "+p.image, err)
	}
	return err
}

// heard tells of a layer what an engine says of it. Docker tells of each step.
// Podman tells of downloads alone and calls the image itself complete at the
// end, and Docker with containerd's store counts seconds while it unpacks.
func heard(l *runtime.Layers, m jsonstream.Message) {
	var current, total int64
	if m.Progress != nil && m.Progress.Units == "" {
		current, total = m.Progress.Current, m.Progress.Total
	}
	switch {
	case m.ID == "":
	case m.Status == "Pulling fs layer", m.Status == "Waiting":
		l.Set(m.ID, runtime.Waiting, 0, 0)
	case m.Status == "Downloading":
		l.Set(m.ID, runtime.Downloading, current, total)
	case m.Status == "Verifying Checksum", m.Status == "Download complete":
		l.Set(m.ID, runtime.Downloaded, 0, 0)
	case m.Status == "Extracting":
		l.Set(m.ID, runtime.Unpacking, current, total)
	case m.Status == "Pull complete", m.Status == "Already exists":
		l.Set(m.ID, runtime.Done, 0, 0)
	case strings.HasPrefix(m.Status, "Retrying in"): // and every second once more
		l.Retry(m.ID, "its download broke off")
	}
}

// The words by which registries' and networks' failures are told apart: the
// API passes them on as text.
var (
	wordsUnreachable = []string{
		"connection refused", "no such host", "i/o timeout", "network is unreachable", "no route to host", "server misbehaving",
		"Client.Timeout", "TLS handshake timeout", "context deadline exceeded", "request canceled while waiting for connection",
	}
	wordsBroken = []string{"EOF", "connection reset", "broken pipe", "received unexpected HTTP status: 5", "invalid status code from registry 5", "500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway", "short read", wordsDigest}
	wordsLogin  = []string{"unauthorized", "no basic auth credentials", "authentication required", "401 Unauthorized"}
	wordsDenied = []string{"pull access denied", "requested access to the resource is denied", "denied:"}
	wordsNone   = []string{"manifest unknown", "not found", "name unknown"}
	wordsArch   = []string{"no matching manifest", "no image found in manifest list", "no image found in image index"}
	wordsOther  = []string{"layers from manifest don't match image configuration", "manifest verification failed"}
)

// How Docker begins what it has to say of a layer: that it is not what its digest
// says, and that it cannot be unpacked.
const (
	wordsDigest = "filesystem layer verification failed"
	wordsUnpack = "failed to register layer"
)

func mentions(err error, words []string) bool {
	for _, word := range words {
		if strings.Contains(err.Error(), word) {
			return true
		}
	}
	return false
}

// passing reports whether trying again may help: the registry answered before,
// or said that the fault is its own.
func passing(err error, begun bool) bool {
	if strings.Contains(err.Error(), wordsUnpack) {
		return false
	}
	return mentions(err, wordsBroken) || begun && mentions(err, wordsUnreachable)
}

// fault says which of the ways to fail it was, and what to type. Those that
// will not pass by themselves are ErrInvalid.
func (p *pull) fault(err error) error {
	const damaged = "try again; if it stays, the image has to be pushed again"
	var what, hint string
	code, lasting := codePull, false
	switch {
	case strings.Contains(err.Error(), "no space left on device"):
		code, what, hint = "disk_full", "the engine's disk is full", p.e.name+" system df"
	case strings.Contains(err.Error(), wordsDigest):
		what, hint = "what came from "+p.domain+" is damaged", damaged
	case strings.Contains(err.Error(), wordsUnpack):
		what, hint = "what came from "+p.domain+" cannot be unpacked", damaged
	case mentions(err, wordsOther):
		what, hint = "what "+p.domain+" has does not belong together", damaged
	case mentions(err, wordsArch):
		what, hint, lasting = fmt.Sprintf("%s has nothing for linux/%s", p.domain, p.e.arch), p.e.name+" manifest inspect "+p.image, true
	case mentions(err, wordsUnreachable):
		what, hint = p.domain+" cannot be reached", "curl -I "+p.endpoint()+"/v2/"
	case mentions(err, wordsDenied):
		what, hint, lasting = "it does not exist on "+p.domain+", or needs a login", p.e.name+" login "+p.domain, true
	case mentions(err, wordsLogin):
		what, hint, lasting = p.domain+" wants a login", p.e.name+" login "+p.domain, true
	case mentions(err, wordsNone):
		what, hint, lasting = "it does not exist on "+p.domain, p.e.name+" pull "+p.image, true
	case mentions(err, wordsBroken):
		what, hint = p.domain+" broke off", p.e.name+" pull "+p.image
	default:
		what, hint = "cannot be pulled from "+p.domain, p.e.name+" pull "+p.image
	}
	if layer := p.layerOf(err); layer != "" {
		what = "layer " + layer + ": " + what
	}
	failed := fmt.Errorf("image %s: %s: %s", p.image, what, said(err))
	if lasting {
		failed = kind{failed.Error(), runtime.ErrInvalid}
	}
	return &runtime.Fault{Code: code, Hint: hint, Err: failed}
}

// layerOf is the layer that an error is about: the one whose digest it has, or
// the one that was unpacked, which engines do one after the other.
func (p *pull) layerOf(err error) string {
	text := err.Error()
	if _, digest, found := strings.Cut(text, wordsDigest+" for digest sha256:"); found && len(digest) >= 12 {
		return digest[:12]
	}
	unpacked := p.layers.In(runtime.Unpacking)
	if strings.Contains(text, wordsUnpack) && len(unpacked) == 1 {
		return unpacked[0]
	}
	return ""
}

// endpoint is where the registry answers. Docker speaks without TLS to this
// machine only.
func (p *pull) endpoint() string {
	host, _, _ := strings.Cut(p.domain, ":")
	switch ip := net.ParseIP(host); {
	case p.domain == "docker.io":
		return "https://registry-1.docker.io"
	case host == "localhost" || ip != nil && ip.IsLoopback():
		return "http://" + p.domain
	}
	return "https://" + p.domain
}
