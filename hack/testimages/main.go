package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/client"

	"github.com/locald/locald/hack/internal/images"
)

//go:embed probe/*.go entrypoint/*.go *.go
var sources embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "testimages: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir := flag.String("dir", "", "where the built images are kept (default: in the user's cache directory)")
	load := flag.Bool("load", true, "load them into the Docker engine")
	push := flag.String("push", "", "push them to the registry at this host:port")
	only := flag.String("only", "", "the names of those to load and push, with commas between them (default: all)")
	flag.Parse()

	store, err := images.Default()
	if err != nil {
		return err
	}
	if *dir != "" {
		store = images.Store{Dir: *dir}
	}
	incomplete, err := build(ctx, store)
	if err != nil {
		return err
	}
	all, err := store.Images()
	if err != nil {
		return err
	}
	if *only != "" {
		names := strings.Split(*only, ",")
		all = slices.DeleteFunc(all, func(i images.Image) bool { return !named(i, names) })
	}
	if *push != "" {
		if err := pushAll(ctx, *push, all); err != nil {
			return err
		}
	}
	if *load {
		if err := loadAll(ctx, all); err != nil {
			return err
		}
	}
	return incomplete
}

// build brings the store up to date. incomplete says what this machine has no
// files for.
func build(ctx context.Context, store images.Store) (incomplete, err error) {
	inputs, err := images.Inputs(sources)
	if err != nil || store.Fresh(inputs) {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "testimages: building in %s\n", store.Dir)
	if err := store.Rebuild(ctx, inputs); !errors.Is(err, images.ErrNoPostgres) {
		return nil, err
	}
	return images.ErrNoPostgres, nil
}

// named reports whether one of the names is "shell" for locald-test/shell:1.
func named(i images.Image, names []string) bool {
	return slices.ContainsFunc(i.Tags, func(tag string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(tag, "locald-test/"), ":")
		return slices.Contains(names, name)
	})
}

func pushAll(ctx context.Context, host string, all []images.Image) error {
	for _, image := range all {
		for _, tag := range image.Tags {
			ref, err := name.ParseReference(host+"/"+tag, name.Insecure)
			if err != nil {
				return err
			}
			if err := remote.Write(ref, image.Image, remote.WithContext(ctx)); err != nil {
				return fmt.Errorf("push %s: %w", ref, err)
			}
		}
	}
	return nil
}

func loadAll(ctx context.Context, all []images.Image) error {
	engine, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	defer engine.Close()
	missing := map[name.Reference]v1.Image{}
	for _, image := range all {
		config, err := image.Image.ConfigName()
		if err != nil {
			return err
		}
		for _, tag := range image.Tags {
			if has, err := engine.ImageInspect(ctx, tag); err == nil && has.ID == config.String() {
				continue
			}
			ref, err := name.NewTag(tag)
			if err != nil {
				return err
			}
			missing[ref] = image.Image
		}
	}
	if len(missing) == 0 {
		return nil
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(tarball.MultiRefWrite(missing, writer)) }()
	answer, err := engine.ImageLoad(ctx, reader, client.ImageLoadWithQuiet(true))
	if err != nil {
		return fmt.Errorf("load into the engine: %w", err)
	}
	defer answer.Close()
	said, err := io.ReadAll(answer)
	if err != nil {
		return fmt.Errorf("load into the engine: %w", err)
	}
	if bytes.Contains(said, []byte(`"error"`)) {
		return fmt.Errorf("load into the engine: %s", said)
	}
	return nil
}
