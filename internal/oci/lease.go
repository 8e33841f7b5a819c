package oci

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

var errNotHere = errors.New("it is not on this machine")

// lease keeps an image from being pruned. One that is held lasts as long as its
// file is locked, which ends with its process; others until Release.
type lease struct {
	Owner  string    `json:"owner"`
	Digest v1.Hash   `json:"digest"`
	Since  time.Time `json:"since"`
	Held   bool      `json:"held,omitempty"`
}

// Lease keeps the image with that digest, as Image.Digest has it, until Release
// of the same owner: across crashes and restarts, since what runs may outlive
// who started it. An owner has one lease; another replaces it. It is an error
// of the kind NotFound if the store does not have the image any more.
func (s *Store) Lease(ctx context.Context, owner, digest string) error {
	return s.brief(ctx, func() error {
		h, err := hashOf(digest)
		if err != nil {
			return err
		}
		found, err := s.image(reference{text: digest}, h)
		if err == nil && found == nil {
			return &Error{Kind: NotFound, Image: digest, Err: errNotHere}
		}
		if err != nil {
			return s.about(err, reference{text: digest}, "")
		}
		return s.about(stored(s.writeLease(owner, h)), reference{text: digest}, "")
	})
}

func (s *Store) writeLease(owner string, digest v1.Hash) error {
	s.touch(digest)
	return s.placeJSON(lease{Owner: owner, Digest: digest, Since: time.Now()}, "leases", named(owner))
}

// touch notes that an image is used, by the time of its manifest. That it cannot
// be noted stands in nobody's way.
func (s *Store) touch(digest v1.Hash) {
	now := time.Now()
	_ = os.Chtimes(s.path("blobs", digest.Hex), now, now)
}

// used is when touch was last called, or the manifest was stored.
func (s *Store) used(digest v1.Hash) time.Time {
	info, err := os.Stat(s.path("blobs", digest.Hex))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Release ends the owner's lease. It is no error if there is none.
func (s *Store) Release(owner string) error {
	var held lease
	if ok, err := readJSON(s.path("leases", named(owner)), &held); ok && err == nil {
		s.touch(held.Digest)
	}
	err := os.Remove(s.path("leases", named(owner)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return stored(err)
}

// Leases returns the digest that each owner has a lease on, for whoever knows
// which owners are still there.
func (s *Store) Leases() (map[string]string, error) {
	all := map[string]string{}
	_, err := each(s, "leases", func(_ string, l lease) {
		if !l.Held {
			all[l.Owner] = l.Digest.String()
		}
	})
	return all, stored(err)
}

// leased returns the owners of each manifest. Leases that nobody holds any more,
// or nobody can read, are removed: the caller has the store's lock for itself.
func (s *Store) leased() (map[v1.Hash][]string, error) {
	owners := map[v1.Hash][]string{}
	var stale []string
	broken, err := each(s, "leases", func(file string, l lease) {
		if l.Held {
			if release, err := seize(s.path("leases", file), exclusive); err == nil && release != nil {
				release()
				stale = append(stale, file)
				return
			}
		}
		owners[l.Digest] = append(owners[l.Digest], l.Owner)
	})
	for _, file := range append(broken, stale...) {
		err = errors.Join(err, os.Remove(s.path("leases", file)))
	}
	return owners, err
}
