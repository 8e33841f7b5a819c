package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	files "github.com/locald/locald/internal/build"
	"github.com/locald/locald/runtime"
)

// build makes the spec's image, unless there is one of the same already.
func (r *Runtime) build(ctx context.Context, e *engine, spec runtime.Spec, report func(runtime.Progress)) error {
	done, err := r.building.take(ctx, spec.Image.Name)
	if err != nil {
		return err
	}
	defer done()
	from := madeOf(spec.Image.Build)
	if spec.Image.Build.Digest != "" && spec.Image.Pull != runtime.PullAlways {
		found, err := e.image(ctx, spec)
		if err != nil || found != nil && found.Labels[labelBuilt] == from {
			return err
		}
	}
	what, err := files.Open(spec.Image.Build.Context, spec.Image.Build.Dockerfile)
	if err != nil {
		return err
	}
	j := &job{r: r, e: e, spec: spec, files: what, from: from, steps: newSteps(spec, report, r.options.Note)}
	if err := j.run(ctx); err != nil {
		return err
	}
	e.pruneBuilt(ctx, spec)
	return nil
}

// turns lets one at a time build an image of a name.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when it is free again
}

func (t *turns) take(ctx context.Context, name string) (done func(), err error) {
	for {
		t.mu.Lock()
		taken := t.taken[name]
		if taken == nil {
			mine := make(chan struct{})
			t.taken[name] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(t.taken, name)
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-taken:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// madeOf tells what an image is built from, and how, from everything else.
func madeOf(b *runtime.Build) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %q", b.Digest, b.Target, b.Args)
	return hex.EncodeToString(sum.Sum(nil))
}

// job is one build.
type job struct {
	r     *Runtime
	e     *engine
	spec  runtime.Spec
	files *files.Context
	from  string
	steps *steps
}

func (j *job) run(ctx context.Context) error {
	ctx, done := j.e.watched(ctx)
	defer done()
	options := j.options()
	if options.Version == build.BuilderBuildKit {
		s, err := j.e.openSession(ctx)
		if err != nil {
			return j.e.fault(ctx, "build", err)
		}
		defer s.close()
		options.SessionID = s.id
	} else {
		options.AuthConfigs = allLogins(ctx)
	}
	body := j.send(ctx)
	defer func() { _ = body.end() }()
	answer, err := j.e.cli.ImageBuild(ctx, body, options)
	if err == nil {
		err = j.steps.read(answer.Body)
		_ = answer.Body.Close()
	}
	switch sent := body.end(); {
	case err == nil && ctx.Err() == nil:
		return j.verify(ctx)
	case sent != nil && ctx.Err() == nil:
		return j.unsent(sent)
	}
	return j.broken(ctx, err)
}

func (j *job) options() client.ImageBuildOptions {
	b := j.spec.Image.Build
	args := map[string]*string{}
	for _, arg := range b.Args {
		name, value, _ := strings.Cut(arg, "=")
		args[name] = &value
	}
	return client.ImageBuildOptions{
		Version: j.e.dialect.builder, Tags: []string{j.spec.Image.Name}, Dockerfile: j.files.DockerfileName(),
		Target: b.Target, BuildArgs: args, PullParent: j.spec.Image.Pull == runtime.PullAlways,
		Remove: true, ForceRemove: true, // of the containers that the older builder works in
		Labels: map[string]string{
			labelBuilt: j.from, labelBuiltInstance: string(j.spec.Owner), labelBuiltProject: j.spec.Project.ID,
			labelBuiltDir: j.spec.Project.Dir, labelBuiltService: j.spec.Service,
		},
	}
}

// sending is the files on their way to the engine.
type sending struct {
	io.ReadCloser
	result chan error
	once   sync.Once
	err    error
}

func (j *job) send(ctx context.Context) *sending {
	read, write := io.Pipe()
	s := &sending{ReadCloser: read, result: make(chan error, 1)}
	counted := &counter{w: write, told: func(n int64) { j.steps.sent(n) }}
	go func() {
		err := j.files.Tar(ctx, counted)
		_ = write.CloseWithError(err)
		s.result <- err
	}()
	return s
}

// end stops sending and returns what went wrong with the files; that nobody
// wants them any more did not.
func (s *sending) end() error {
	s.once.Do(func() {
		_ = s.Close()
		if s.err = <-s.result; errors.Is(s.err, io.ErrClosedPipe) {
			s.err = nil
		}
	})
	return s.err
}

// counter tells how much was written, ten times a second at most.
type counter struct {
	w    io.Writer
	told func(int64)
	n    int64
	last time.Time
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	const interval = time.Second / 10
	if now := time.Now(); now.Sub(c.last) >= interval {
		c.last = now
		c.told(c.n)
	}
	return n, err
}

// verify looks whether the engine has what it said it would make.
func (j *job) verify(ctx context.Context) error {
	found, err := j.e.image(ctx, j.spec)
	if err != nil {
		return err
	}
	if found == nil || found.Labels[labelBuilt] != j.from {
		return &runtime.Fault{Code: codePull, Hint: j.logs(), Err: fmt.Errorf("build: %s ended the build without an image", j.e.name)}
	}
	return nil
}

func (j *job) logs() string { return "locald logs " + j.spec.Service }

// unsent is the fault for files that could not be read to their end.
func (j *job) unsent(err error) error {
	if _, known := errors.AsType[*runtime.Fault](err); known {
		return err
	}
	return &runtime.Fault{Code: codePull, Hint: "locald up " + j.spec.Service, Err: fmt.Errorf("build: %w", err)}
}

// refusal is what the builder said.
type refusal string

func (r refusal) Error() string { return string(r) }

// broken tells the engine's own absence, and a base image that cannot be had,
// from a Dockerfile that does not work. The last is the user's to mend, and no
// other try helps.
func (j *job) broken(ctx context.Context, err error) error {
	var said refusal
	if ctx.Err() != nil || !errors.As(err, &said) && !cerrdefs.IsInvalidArgument(err) && !cerrdefs.IsInternal(err) {
		return j.e.fault(ctx, "build", err)
	}
	if base, domain := j.steps.base(); base != "" {
		p := pull{e: j.e, image: base, domain: domain, layers: runtime.NewLayers(base, func(runtime.Progress) {})}
		return fmt.Errorf("build: %w", p.fault(plain(err)))
	}
	if strings.Contains(err.Error(), "no space left on device") {
		return &runtime.Fault{Code: "disk_full", Hint: j.e.name + " system df", Err: fmt.Errorf("build: the engine's disk is full: %w", plain(err))}
	}
	return &runtime.Fault{Code: codePull, Hint: j.logs(), Kind: runtime.ErrInvalid, Err: fmt.Errorf("build: %s%w%s", j.steps.where(), plain(err), j.steps.last())}
}

// plain leaves out what builders put before their words.
func plain(err error) error {
	text := said(err)
	for _, prefix := range []string{
		"failed to solve with frontend dockerfile.v0: ", "failed to solve with frontend gateway.v0: ", "failed to solve: ",
		"failed to build LLB: ", "failed to create LLB definition: ", "executor failed running ", "rpc error: code = Unknown desc = ",
	} {
		text = strings.TrimPrefix(text, prefix)
	}
	return errors.New(strings.TrimSpace(text))
}

// message is one of a build's: jsonstream's, and an error as Podman has it.
type message struct {
	jsonstream.Message
	Plain string `json:"error"`
}

// read follows a build to its end. Its error is a refusal when the builder gave
// up.
func (s *steps) read(body io.Reader) error {
	for d := json.NewDecoder(body); ; {
		var m message
		switch err := d.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case m.Error != nil:
			return refusal(m.Error.Message)
		case m.Plain != "":
			return refusal(m.Plain)
		case m.ID == traceID && m.Aux != nil:
			var trace []byte
			if json.Unmarshal(*m.Aux, &trace) == nil {
				s.trace(trace)
			}
		case m.Stream != "":
			s.stream(m.Stream)
		}
	}
}

// pruneBuilt removes earlier images of the service that have lost their name to
// a later one, and that no container uses. What it cannot remove the next build
// will.
func (e *engine) pruneBuilt(ctx context.Context, spec runtime.Spec) {
	ctx, done := e.watched(ctx)
	defer done()
	_, _ = e.cli.ImagePrune(ctx, client.ImagePruneOptions{Filters: make(client.Filters).
		Add("dangling", "true").
		Add("label", labelBuiltInstance+"="+string(spec.Owner)).
		Add("label", labelBuiltProject+"="+spec.Project.ID).
		Add("label", labelBuiltService+"="+spec.Service)})
}
