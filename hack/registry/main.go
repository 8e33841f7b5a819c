// Command registry serves the test images from a registry on this machine, and
// misbehaves where asked. Docker trusts it without TLS, because it is on
// 127.0.0.1:
//
//	go run ./hack/registry -rate 2000000
//	docker pull 127.0.0.1:5055/postgres:15
//
// With -program it serves an image of that one static program instead.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/locald/locald/hack/faultregistry"
	"github.com/locald/locald/hack/internal/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "registry: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var faults faultregistry.Faults
	address := flag.String("addr", "127.0.0.1:5055", "where to listen")
	flag.IntVar(&faults.Rate, "rate", 0, "bytes a second for each layer")
	flag.Int64Var(&faults.CutAfter, "cut", 0, "break the connection after this many bytes of a layer")
	flag.IntVar(&faults.Cuts, "cuts", 0, "how many times to do so (default: always)")
	flag.IntVar(&faults.Status, "status", 0, "answer everything with this status: 401, 500")
	program := flag.String("program", "", "a static program that is an image by itself, bench/NAME:1, instead of the test images")
	flag.Parse()

	all, err := imagesOf(*program)
	if err != nil {
		return err
	}
	registry, err := faultregistry.Listen(*address)
	if err != nil {
		return err
	}
	for _, image := range all {
		for _, tag := range image.Tags {
			pushed, err := registry.Push(tag, image.Image)
			if err != nil {
				return errors.Join(err, registry.Close())
			}
			fmt.Println(pushed)
		}
	}
	fmt.Println("serving")
	registry.Misbehave(faults)
	<-ctx.Done()
	return registry.Close()
}

// imagesOf are the test images, or the program's.
func imagesOf(program string) ([]images.Image, error) {
	if program == "" {
		store, err := images.Default()
		if err != nil {
			return nil, err
		}
		return store.Images()
	}
	image, err := images.Program(program)
	return []images.Image{{Tags: []string{"bench/" + filepath.Base(program) + ":1"}, Image: image}}, err
}
