package oci

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// PullOptions says what Pull does besides.
type PullOptions struct {
	// Owner gets a lease on the image before anybody can prune it; empty: nobody.
	Owner string
	// Report is told how far each layer has come, never twice at once. nil is
	// nobody.
	Report func(Progress)
}

// Pull asks the registry what the reference stands for, brings what the store
// lacks of it, and returns the image. It asks even when the store has the
// reference; Image does not. What came is kept when Pull fails or is cancelled,
// and the next one goes on from there. Any error is an *Error or wraps that of
// ctx.
func (s *Store) Pull(ctx context.Context, image string, o PullOptions) (*Image, error) {
	r, err := parse(image)
	if err != nil {
		return nil, s.about(err, r, "")
	}
	p := &pull{store: s, ref: r, teller: newTeller(o.Report)}
	if p.session, err = p.dial(ctx); err != nil {
		return nil, s.about(err, r, "")
	}
	got, err := p.session.resolve(ctx, s, p.trouble)
	if err != nil {
		return nil, s.about(err, r, "")
	}
	release, err := p.announce(ctx, got)
	if err != nil {
		return nil, s.about(stored(err), r, "")
	}
	defer release()
	if err := p.layers(ctx, got.layers); err != nil {
		return nil, err
	}
	if err := s.brief(ctx, func() error { return p.settle(got, o.Owner) }); err != nil {
		return nil, s.about(stored(err), r, "")
	}
	found, err := s.image(r, got.digest)
	if err == nil && found == nil {
		err = fail(Storage, "it was removed while it was pulled")
	}
	return found, s.about(err, r, "")
}

// pull is one image on its way.
type pull struct {
	store   *Store
	ref     reference
	session *session
	teller  *teller
}

// trouble tells why something that belongs to no layer is tried again.
func (p *pull) trouble(reason string) {
	p.teller.tell(Progress{Phase: Retrying, Reason: reason})
}

func (p *pull) dial(ctx context.Context) (c *session, err error) {
	err = p.store.repeat(ctx, false, p.trouble, func() error {
		c, err = p.store.dial(ctx, p.ref)
		return err
	})
	return c, err
}

// announce stores manifest and configuration, and keeps everything that they
// name from being pruned until release, or until this process ends.
func (p *pull) announce(ctx context.Context, got *resolved) (release func(), err error) {
	s := p.store
	id := fmt.Sprintf("pull of process %d, %s", os.Getpid(), rand.Text())
	file := s.path("leases", named(id))
	var unlock func()
	err = s.brief(ctx, func() (err error) {
		if err := s.place(got.manifest, "blobs", got.digest.Hex); err != nil {
			return err
		}
		if err := s.place(got.config, "blobs", got.configDigest.Hex); err != nil {
			return err
		}
		if err := s.placeJSON(lease{Owner: id, Digest: got.digest, Since: time.Now(), Held: true}, "leases", named(id)); err != nil {
			return err
		}
		unlock, err = seize(file, exclusive)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() {
		_ = os.Remove(file) // what is left of it is not held and will be pruned
		unlock()
	}, nil
}

// layers brings all of them, several at once.
func (p *pull) layers(ctx context.Context, all []layer) error {
	seen := map[v1.Hash]bool{}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range all {
		if seen[l.diffID] {
			continue
		}
		seen[l.diffID] = true
		p.teller.tell(Progress{Layer: l.short(), Phase: Waiting, Total: l.size})
		group.Go(func() error { return p.store.about(p.layer(ctx, l), p.ref, l.short()) })
	}
	return group.Wait()
}

// layer sees to it that one layer is there. Whoever else wants it waits, and
// finds it made, or makes it when the first one fails.
func (p *pull) layer(ctx context.Context, l layer) error {
	s := p.store
	release, err := hold(ctx, s.path("locks", l.diffID.Hex), exclusive)
	if err != nil {
		return stored(err)
	}
	defer release()
	there, err := s.unpacked(l.diffID)
	if err != nil {
		return stored(err)
	}
	if there == nil {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := p.fetch(ctx, l); err != nil {
			return err
		}
	}
	p.teller.tell(Progress{Layer: l.short(), Phase: Done, Current: l.size, Total: l.size})
	return nil
}

// fetch downloads and unpacks. When what an earlier download left turns out to
// be wrong, everything is asked for once more.
func (p *pull) fetch(ctx context.Context, l layer) error {
	resumed, err := p.make(ctx, l)
	if resumed && IsKind(err, Corrupt) {
		_, err = p.make(ctx, l)
	}
	return err
}

// settle writes down what the reference stands for now.
func (p *pull) settle(got *resolved, owner string) error {
	if owner != "" {
		if err := p.store.writeLease(owner, got.digest); err != nil {
			return err
		}
	}
	return p.store.placeJSON(tag{Reference: p.ref.full, Digest: got.digest, Pulled: time.Now()}, "refs", named(p.ref.full))
}
