package pid1

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A volume is filled in two steps, so that whatever is killed leaves one that is
// empty or one that is filled: the image's files are copied to a directory beside
// it, which then gets another name, and only then do they move in.
const (
	halfCopied = ".part"
	allCopied  = ".copied"
)

// fillAll copies what the image has at the targets of volumes, before anything
// is mounted over it.
func (r root) fillAll(s *Spec) error {
	for _, m := range s.Mounts {
		if !m.Fill {
			continue
		}
		if err := r.fill(m); err != nil {
			return fail(MountFailed, "volume at "+m.Target, err)
		}
	}
	return nil
}

// fill gives an empty volume what the image has at its target: files, mode and
// owner. Whoever else wants to fill it waits.
func (r root) fill(m Mount) error {
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return err
	}
	place, err := os.Open(filepath.Dir(m.Source))
	if err != nil {
		return err
	}
	defer place.Close()
	if err := unix.Flock(int(place.Fd()), unix.LOCK_EX); err != nil {
		return os.NewSyscallError("flock", err)
	}
	if err := moveIn(m.Source); err != nil {
		return err
	}
	if has, err := os.ReadDir(m.Source); err != nil || len(has) > 0 {
		return err
	}
	fd, err := r.open(m.Target, nothing)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // an empty directory is made there, or the mount says what is wrong
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	part := m.Source + halfCopied
	if err := remove(part); err != nil {
		return err
	}
	if err := copyTree(at(fd)+"/.", part); err != nil {
		return errors.Join(err, remove(part))
	}
	if err := os.Rename(part, m.Source+allCopied); err != nil {
		return err
	}
	return moveIn(m.Source)
}

// moveIn gives a volume what has been copied for it, if something has. What a
// container has put there meanwhile stays.
func moveIn(volume string) error {
	copied := volume + allCopied
	names, err := os.ReadDir(copied)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range names {
		err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(copied, entry.Name()), unix.AT_FDCWD, filepath.Join(volume, entry.Name()), unix.RENAME_NOREPLACE)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s: %w", entry.Name(), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(copied, &st); err != nil {
		return err
	}
	return errors.Join(like(volume, &st), remove(copied))
}

// copyTree copies a directory to a name that is not there. Nobody changes the
// original meanwhile. Sockets and devices are left out.
func copyTree(from, to string) error {
	type dir struct {
		name string
		st   unix.Stat_t
	}
	var dirs []dir
	links := map[uint64]string{}
	err := filepath.WalkDir(from, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, below)
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: below, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			dirs = append(dirs, dir{target, st})
			return os.Mkdir(target, 0o700)
		}
		if first := links[st.Ino]; first != "" {
			return os.Link(first, target)
		}
		if st.Nlink > 1 {
			links[st.Ino] = target
		}
		return copyFile(name, target, &st)
	})
	// The deepest first: a directory may be closed, and has its time from before.
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = like(dirs[i].name, &dirs[i].st)
	}
	return err
}

// copyFile copies what is no directory.
func copyFile(from, to string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err == nil {
			err = os.Symlink(target, to)
		}
		if err != nil {
			return err
		}
	case unix.S_IFREG:
		if err := copyContent(from, to); err != nil {
			return err
		}
	case unix.S_IFIFO:
		if err := unix.Mkfifo(to, 0o600); err != nil {
			return &fs.PathError{Op: "mkfifo", Path: to, Err: err}
		}
	default:
		return nil
	}
	return like(to, st)
}

func copyContent(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, source)
	return errors.Join(err, f.Close())
}

// like gives a file the owner, the mode and the time of another. An owner that
// the container does not have is not kept.
func like(name string, st *unix.Stat_t) error {
	err := os.Lchown(name, int(st.Uid), int(st.Gid))
	if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(name, st.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: name, Err: err}
		}
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimes", Path: name, Err: err}
	}
	return nil
}
