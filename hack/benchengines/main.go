package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/locald/locald/internal/maker"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "container" { // the builtin engine tries whether it can, and without the tag makes them so
		os.Exit(maker.Main(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "benchengines: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// settings are what the flags say.
type settings struct {
	locald string
	rounds int
	pulls  int
	only   string
	out    string
}

func run(ctx context.Context) error {
	var s settings
	flag.StringVar(&s.locald, "locald", "./locald", "the locald whose keeper is used")
	flag.IntVar(&s.rounds, "rounds", 15, "how many containers each contestant starts in each network")
	flag.IntVar(&s.pulls, "pulls", 5, "how often each pulls")
	flag.StringVar(&s.only, "only", "", "names of contestants, separated by commas (default: all)")
	flag.StringVar(&s.out, "out", "", "a file to which measurements are added, one line of JSON each")
	flag.Parse()

	dir, err := os.MkdirTemp("", "benchengines-")
	if err != nil {
		return err
	}
	images, err := serve()
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	field, err := s.line(ctx, dir, images)
	if err == nil {
		err = s.measure(ctx, field, images)
	}
	for _, c := range field {
		err = errors.Join(err, c.close(context.WithoutCancel(ctx)))
	}
	return errors.Join(err, images.Close(), os.RemoveAll(dir))
}

// line brings those contestants to the line that the machine has, and says why
// the others are missing.
func (s settings) line(ctx context.Context, dir string, images *served) (field []contestant, err error) {
	for _, candidate := range []struct {
		name  string
		ready func(ctx context.Context, dir string, images *served) (contestant, error)
	}{
		{"builtin", s.builtin}, {"docker", newDocker}, {"podman", newPodman}, {"containerd", newContainerd}, {"runc", newRunc},
	} {
		if s.only != "" && !slices.Contains(strings.Split(s.only, ","), candidate.name) {
			continue
		}
		own := filepath.Join(dir, candidate.name)
		if err := os.Mkdir(own, 0o700); err != nil {
			return field, err
		}
		c, err := candidate.ready(ctx, own, images)
		if err != nil {
			fmt.Fprintf(os.Stderr, "benchengines: without %s: %v\n", candidate.name, err)
			continue
		}
		field = append(field, c)
	}
	if len(field) == 0 {
		return nil, errors.New("nothing to measure")
	}
	return field, nil
}

func (s settings) measure(ctx context.Context, field []contestant, images *served) error {
	var results results
	if s.out != "" {
		f, err := os.OpenFile(s.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		results.lines = json.NewEncoder(f)
	}
	if err := s.lifecycles(ctx, field, &results); err != nil {
		return err
	}
	if err := s.downloads(ctx, field, images.postgres, &results); err != nil {
		return err
	}
	results.table(os.Stdout)
	return nil
}

// lifecycles and downloads have one round more than they count, to warm up.
func (s settings) lifecycles(ctx context.Context, field []contestant, to *results) error {
	for round := range s.rounds + 1 {
		for _, network := range networks {
			for _, c := range field {
				if err := lifecycle(ctx, c, network, round, to); err != nil {
					return fmt.Errorf("%s, network %s: %w", c.name(), network, err)
				}
			}
		}
	}
	return nil
}

func (s settings) downloads(ctx context.Context, field []contestant, image string, to *results) error {
	for round := range s.pulls + 1 {
		for _, c := range field {
			p, can := c.(puller)
			if !can {
				continue
			}
			if err := pull(ctx, p, image, round, to); err != nil {
				return fmt.Errorf("%s: %w", c.name(), err)
			}
		}
	}
	return nil
}

// lifecycle starts, stops and removes one container.
func lifecycle(ctx context.Context, c contestant, network network, round int, to *results) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	lap := to.clock(c.name(), string(network), round)
	made, err := c.start(ctx, network)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	lap("start")
	if err := made.stop(ctx); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	lap("stop")
	if err := made.remove(ctx); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	lap("remove")
	return nil
}

// pull pulls an image of which nothing is there. What others have still to
// write to the disk is written before.
func pull(ctx context.Context, p puller, image string, round int, to *results) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	syscall.Sync()
	lap := to.clock(p.name(), "", round)
	if err := p.pull(ctx, image); err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	lap("pull")
	if err := p.forget(ctx, image); err != nil {
		return fmt.Errorf("remove the image: %w", err)
	}
	return nil
}
