package oci

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Listed is one reference that the store knows.
type Listed struct {
	Reference string // with registry, and tag or digest
	Name      string // the same as people write it
	Digest    string
	Size      int64 // bytes of all files; layers that others share count for each
	Created   time.Time
	Pulled    time.Time
	Used      time.Time // when a lease last began or ended, or it was pulled
	InUse     []string  // who has a lease
	Complete  bool      // everything of it is there
}

// List returns what the store has, sorted by reference.
func (s *Store) List(ctx context.Context) (all []Listed, err error) {
	err = s.alone(ctx, func() error {
		all, err = s.list()
		return err
	})
	return all, stored(err)
}

func (s *Store) list() ([]Listed, error) {
	owners, err := s.leased()
	if err != nil {
		return nil, err
	}
	var all []Listed
	var wrong error
	broken, err := each(s, "refs", func(_ string, t tag) {
		one := Listed{Reference: t.Reference, Name: familiar(t.Reference), Digest: t.Digest.String(), Pulled: t.Pulled, Used: s.used(t.Digest), InUse: owners[t.Digest]}
		found, err := s.image(reference{text: t.Reference}, t.Digest)
		wrong = errors.Join(wrong, err)
		if found != nil {
			one.Size, one.Created, one.Complete = found.Size, found.Created, true
		}
		slices.Sort(one.InUse)
		all = append(all, one)
	})
	for _, file := range broken {
		err = errors.Join(err, os.Remove(s.path("refs", file)))
	}
	slices.SortFunc(all, func(a, b Listed) int { return strings.Compare(a.Reference, b.Reference) })
	return all, errors.Join(err, wrong)
}

// Remove forgets a reference and deletes what only it needed. It returns the
// bytes freed. What has a lease is not removed.
func (s *Store) Remove(ctx context.Context, image string) (freed int64, err error) {
	r, err := parse(image)
	if err != nil {
		return 0, s.about(err, r, "")
	}
	freed, err = s.sweep(ctx, func(known []Listed) ([]string, error) {
		i := slices.IndexFunc(known, func(l Listed) bool { return l.Reference == r.full })
		switch {
		case i < 0:
			return nil, fail(NotFound, "%w", errNotHere)
		case len(known[i].InUse) > 0:
			return nil, fail(InUse, "it is in use by %s", strings.Join(known[i].InUse, ", "))
		}
		return []string{r.full}, nil
	})
	return freed, s.about(err, r, "")
}

// Prune deletes the images that have no lease and that keep does not want, and
// everything in the store that no image needs: what tags have left behind,
// broken downloads, the remains of crashes. It returns the bytes freed. What is
// being pulled meanwhile stays. A nil keep wants nothing.
func (s *Store) Prune(ctx context.Context, keep func(Listed) bool) (freed int64, err error) {
	freed, err = s.sweep(ctx, func(known []Listed) (drop []string, err error) {
		for _, one := range known {
			if len(one.InUse) == 0 && (keep == nil || !keep(one)) {
				drop = append(drop, one.Reference)
			}
		}
		return drop, nil
	})
	return freed, stored(err)
}

// sweep forgets the references that choose names, and then whatever nothing
// points at. It decides alone and deletes afterwards.
func (s *Store) sweep(ctx context.Context, choose func([]Listed) ([]string, error)) (freed int64, err error) {
	err = s.alone(ctx, func() error {
		known, err := s.list()
		if err != nil {
			return err
		}
		drop, err := choose(known)
		if err != nil {
			return err
		}
		for _, full := range drop {
			if err := os.Remove(s.path("refs", named(full))); err != nil {
				return err
			}
		}
		needed, err := s.needed()
		if err != nil {
			return err
		}
		freed, err = s.clear(needed)
		return err
	})
	if err != nil {
		return freed, err
	}
	entries, err := os.ReadDir(s.path("trash"))
	for _, entry := range entries {
		err = errors.Join(err, s.removeTree(s.path("trash", entry.Name())))
	}
	return freed, err
}

// needed are the digests that references and leases lead to: of manifests,
// configurations and tars.
func (s *Store) needed() (map[string]bool, error) {
	roots := map[v1.Hash]bool{}
	_, err := each(s, "refs", func(_ string, t tag) { roots[t.Digest] = true })
	if err != nil {
		return nil, err
	}
	owners, err := s.leased()
	if err != nil {
		return nil, err
	}
	for digest := range owners {
		roots[digest] = true
	}
	needed := map[string]bool{}
	for digest := range roots {
		got, err := s.described(digest)
		if err != nil && !IsKind(err, Corrupt) && !IsKind(err, Unsupported) {
			return nil, err
		}
		if got == nil {
			continue
		}
		needed[digest.Hex], needed[got.configDigest.Hex] = true, true
		for _, l := range got.layers {
			needed[l.diffID.Hex] = true
		}
	}
	return needed, nil
}

// clear moves what is not needed to the trash.
func (s *Store) clear(needed map[string]bool) (freed int64, err error) {
	aside, err := os.MkdirTemp(s.path("trash"), "")
	if err != nil {
		return 0, err
	}
	for _, part := range []string{"blobs", "layers", "partial", "tmp", "locks"} {
		entries, err := os.ReadDir(s.path(part))
		if err != nil {
			return freed, err
		}
		for _, entry := range entries {
			size, err := s.drop(part, entry.Name(), aside, needed)
			if err != nil {
				return freed, err
			}
			freed += size
		}
	}
	return freed, nil
}

// drop moves one entry to the trash unless it is needed or somebody has its
// lock, and returns its size.
func (s *Store) drop(part, name, aside string, needed map[string]bool) (size int64, err error) {
	if needed[name] && part != "locks" {
		return 0, nil
	}
	diffID, ok := strings.CutPrefix(name, "layer-") // in tmp
	if part == "partial" {
		diffID, _, ok = strings.Cut(name, "-")
	}
	if part == "locks" {
		diffID, ok = name, true
	}
	if ok {
		release, err := seize(s.path("locks", diffID), exclusive)
		if release == nil {
			return 0, err
		}
		defer release()
	}
	size = sizeOf(s.path(part, name))
	return size, os.Rename(s.path(part, name), filepath.Join(aside, part+"-"+name))
}

// sizeOf adds up the files at path.
func sizeOf(path string) int64 {
	var c contents
	if ok, err := readJSON(filepath.Join(path, manifestOfLayer), &c); ok && err == nil {
		return c.Size
	}
	_, size := measure(path)
	return size
}
