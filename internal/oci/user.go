package oci

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// User is who a container's process is to be.
type User struct {
	UID, GID uint32
	Groups   []uint32 // besides GID
	Name     string   // empty when the image has no name for it
	Home     string   // "/" when the image does not say
}

// User understands "", "name", "uid", "name:group" and their mixtures by the
// image's /etc/passwd and /etc/group, as Docker does: a number need not be
// known, a user without a group has that of passwd or 0, and supplementary
// groups only if no group is given.
func (i *Image) User(text string) (User, error) {
	who, group, grouped := strings.Cut(text, ":")
	u := User{Home: "/"}
	passwd, err := i.table("etc/passwd")
	if err != nil {
		return u, err
	}
	groups, err := i.table("etc/group")
	if err != nil {
		return u, err
	}
	if who == "" {
		who = "0"
	}
	if err := u.find(passwd, who); err != nil {
		return u, i.nobody(fmt.Errorf("user %q: %w", who, err))
	}
	if grouped && group != "" {
		if u.GID, err = groupNamed(groups, group); err != nil {
			return u, i.nobody(fmt.Errorf("group %q: %w", group, err))
		}
		return u, nil
	}
	for _, row := range groups {
		if len(row) > 3 && u.Name != "" && slices.Contains(strings.Split(row[3], ","), u.Name) {
			if gid, err := number(row[2]); err == nil && gid != u.GID {
				u.Groups = append(u.Groups, gid)
			}
		}
	}
	return u, nil
}

func (i *Image) nobody(err error) error {
	return &Error{Kind: NotFound, Image: i.Reference, Hint: "give the number: 1000 or 1000:1000", Err: err}
}

var errUnknown = errors.New("the image does not know it")

// find looks for a name first, and for a number if it is one.
func (u *User) find(passwd [][]string, who string) error {
	uid, numeric := number(who)
	for _, row := range passwd {
		if len(row) < 4 {
			continue
		}
		id, err := number(row[2])
		if err != nil || row[0] != who && (numeric != nil || id != uid) {
			continue
		}
		gid, err := number(row[3])
		if err != nil {
			continue
		}
		u.UID, u.GID, u.Name = id, gid, row[0]
		if len(row) > 5 && strings.HasPrefix(row[5], "/") {
			u.Home = row[5]
		}
		return nil
	}
	if numeric != nil {
		return errUnknown
	}
	u.UID = uid
	return nil
}

func groupNamed(groups [][]string, name string) (uint32, error) {
	for _, row := range groups {
		if len(row) > 2 && row[0] == name {
			return number(row[2])
		}
	}
	gid, err := number(name)
	if err != nil {
		return 0, errUnknown
	}
	return gid, nil
}

// number reads a uid or gid; the last one of 32 bits means none.
func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err == nil && n == 1<<32-1 {
		err = strconv.ErrRange
	}
	return uint32(n), err
}

// table reads a file of lines of fields with colons. One that is not there is
// empty.
func (i *Image) table(path string) (rows [][]string, err error) {
	real, err := i.locate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: /%s: %w", i.Reference, path, err)
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = 4 << 20
	content, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, most)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
			rows = append(rows, strings.Split(line, ":"))
		}
	}
	return rows, lines.Err()
}

// locate finds a regular file of the image as the overlay would: in the layers,
// the top one first, and without leaving them, whatever links say.
func (i *Image) locate(path string) (string, error) {
	way, err := split(path)
	if err != nil {
		return "", err
	}
	for range mostTurns {
		real, next, err := i.walk(way)
		if err != nil || real != "" {
			return real, err
		}
		way = next
	}
	return "", errors.New("too many links")
}

// walk goes down through all layers at once. When it meets a link it returns
// the way with the link's target in its place.
func (i *Image) walk(way []string) (real string, next []string, err error) {
	dirs := i.Layers
	for at, part := range way {
		if part == ".." {
			next, ok := up(way, at)
			if !ok {
				return "", nil, leaves(strings.Join(way, "/"))
			}
			return "", next, nil
		}
		found, below, err := down(dirs, part)
		switch {
		case err != nil:
			return "", nil, err
		case found == "":
			dirs = below
			continue
		}
		info, err := os.Lstat(found)
		if err != nil {
			return "", nil, err
		}
		if info.Mode().Type() == fs.ModeSymlink {
			to, err := os.Readlink(found)
			return "", turn(way, at, to), err
		}
		if !info.Mode().IsRegular() || at < len(way)-1 {
			return "", nil, fs.ErrNotExist
		}
		return found, nil, nil
	}
	return "", nil, fs.ErrNotExist
}

// down looks for a name in directories of several layers that are one to the
// overlay: either something that is no directory, or the directories that are
// one in turn.
func down(dirs []string, part string) (found string, below []string, err error) {
	for _, dir := range dirs {
		path := filepath.Join(dir, part)
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", nil, err
		case whiteoutFile(info):
		case info.IsDir():
			below = append(below, path)
			if !opaqueDirectory(path) {
				continue
			}
		case len(below) == 0:
			return path, nil, nil
		}
		break
	}
	if len(below) == 0 {
		return "", nil, fs.ErrNotExist
	}
	return "", below, nil
}
