package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// privileged reports whether owners and the overlay's trusted attributes can
// be written: as root of the machine, not of a user namespace.
func privileged(dir string) bool {
	if os.Geteuid() != 0 {
		return false
	}
	probe, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return false
	}
	defer os.Remove(probe)
	err = unix.Setxattr(probe, "trusted.overlay.opaque", []byte("y"), 0)
	return err == nil || errors.Is(err, unix.ENOTSUP)
}

func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// unpacker writes one layer below root. Every directory on the way to an entry
// is opened one by one and never through a link, so nothing that a layer says
// reaches anything else.
type unpacker struct {
	ctx        context.Context
	root       int
	tree       *os.Root
	privileged bool
	got        contents
	dirs       map[string]*directory // by their real names; "" is the root
	gone       map[string]bool       // whiteouts that stand
	owners     map[string]Owner      // of what is not root's or runs as its owner; nil where nobody wants to know
	noted      map[string]bool
	buffer     []byte

	last   string // the directory that lastFD is
	lastFD int    // or -1
}

// directory is what a directory gets when everything is in it: until then it
// must be writable.
type directory struct {
	header *tar.Header // nil when no entry mentions it
	opaque bool
}

// unpack reads a tar to its end mark and writes what is in it to dir, which is
// empty. If it is owned, it returns the owners that somebody else has to give.
func unpack(ctx context.Context, dir string, from io.Reader, privileged, owned bool) (*contents, []Owner, error) {
	top, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer top.Close()
	tree, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer tree.Close()
	u := &unpacker{
		ctx: ctx, root: int(top.Fd()), tree: tree, privileged: privileged, dirs: map[string]*directory{"": {}}, gone: map[string]bool{},
		noted: map[string]bool{}, buffer: make([]byte, 128<<10), lastFD: -1,
	}
	if owned {
		u.owners = map[string]Owner{}
	}
	defer u.forget()
	r := tar.NewReader(from)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if err := u.entry(h, r); err != nil {
			return nil, nil, err
		}
	}
	if err := u.finish(); err != nil {
		return nil, nil, err
	}
	slices.Sort(u.got.Notes)
	return &u.got, slices.SortedFunc(maps.Values(u.owners), deepest), nil
}

// deepest sorts what is in a directory before the directory.
func deepest(a, b Owner) int { return strings.Compare(b.Name, a.Name) }

// whose notes the owner of an entry for whoever wants to know.
func (u *unpacker) whose(name string, h *tar.Header) {
	if u.owners == nil {
		return
	}
	mode := uint32(h.Mode & 0o7777)
	if h.Typeflag == tar.TypeSymlink {
		mode = 0
	}
	if h.Uid != 0 || h.Gid != 0 || h.Typeflag != tar.TypeDir && mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		u.owners[name] = Owner{Name: name, UID: h.Uid, GID: h.Gid, Mode: mode}
	}
}

func (u *unpacker) forget() {
	if u.lastFD >= 0 {
		_ = unix.Close(u.lastFD)
	}
	u.lastFD = -1
}

// place is where an entry goes: a directory that is open, and a name in it.
type place struct {
	dir  int
	base string
	name string // the whole real name
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if h.Typeflag == tar.TypeDir {
			u.dirs[""].header = h
		}
		return nil
	}
	for i, part := range parts {
		reserved := strings.HasPrefix(part, whiteoutOf) && (part != opaque || i < len(parts)-1)
		if reserved || strings.HasPrefix(part, whiteout) && i < len(parts)-1 {
			u.note("entries with reserved names: " + whiteout + "*")
			return nil
		}
	}
	if h.Uid < 0 || h.Uid >= math.MaxUint32 || h.Gid < 0 || h.Gid >= math.MaxUint32 {
		return fail(Corrupt, "%.200q belongs to %d:%d", h.Name, h.Uid, h.Gid)
	}
	at, err := u.locate(parts, true)
	if err != nil {
		return wrap(h.Name, err)
	}
	if err := u.put(at, h, content); err != nil {
		return wrap(h.Name, err)
	}
	return nil
}

// wrap names the entry in errors of the file system. Those of the stream stay
// what they are: they are not about the entry.
func wrap(name string, err error) error {
	var errno unix.Errno
	var named *fs.PathError
	if errors.As(err, &errno) && !errors.As(err, &named) {
		return &fs.PathError{Op: "unpack", Path: name, Err: err}
	}
	return err
}

func (u *unpacker) note(text string) {
	if !u.noted[text] {
		u.noted[text] = true
		u.got.Notes = append(u.got.Notes, text)
	}
}

func (u *unpacker) put(at place, h *tar.Header, content io.Reader) error {
	if at.base == opaque {
		u.dirs[parentOf(at.name)].opaque = true
		return nil
	}
	if hidden, is := strings.CutPrefix(at.base, whiteout); is {
		return u.hide(at, hidden)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(at, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(at, h, content)
	case tar.TypeSymlink:
		return u.symlink(at, h)
	case tar.TypeLink:
		return u.link(at, h)
	case tar.TypeFifo:
		return u.fifo(at, h)
	case tar.TypeChar, tar.TypeBlock:
		u.note("device nodes")
		return nil
	}
	return fail(Corrupt, "%.200q is of the unknown type %q", h.Name, h.Typeflag)
}

func parentOf(name string) string {
	parent, _, _ := cutLast(name)
	return parent
}

func cutLast(name string) (parent, base string, nested bool) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name, false
	}
	return name[:i], name[i+1:], true
}

// locate opens the directory that an entry is in. Links on the way are
// followed inside the image. With missing, directories that are not there are
// made.
func (u *unpacker) locate(parts []string, missing bool) (place, error) {
	base, way := parts[len(parts)-1], parts[:len(parts)-1]
	plain := strings.Join(way, "/")
	if u.lastFD >= 0 && u.last == plain {
		return place{u.lastFD, base, join(plain, base)}, nil
	}
	for links := 0; ; links++ {
		if links > mostTurns {
			return place{}, fail(Corrupt, "%.200q is behind more than %d links", strings.Join(parts, "/"), mostTurns)
		}
		real, fd, next, err := u.walk(way, missing)
		if errors.Is(err, errAbove) {
			err = &Error{Kind: Unsafe, Err: fmt.Errorf("the entry %.200q is behind a link that leaves the image", strings.Join(parts, "/"))}
		}
		if err != nil {
			return place{}, err
		}
		if fd >= 0 {
			u.forget()
			u.last, u.lastFD = real, fd
			return place{fd, base, join(real, base)}, nil
		}
		way = next
	}
}

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// errAbove says that a way goes up from the root.
var errAbove = errors.New("above the root")

// walk goes down from the root. When it meets a link it returns the way with
// the link's target in its place, and -1.
func (u *unpacker) walk(way []string, missing bool) (real string, fd int, next []string, err error) {
	fd, err = unix.Openat(u.root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", -1, nil, err
	}
	for i, part := range way {
		if part == ".." {
			_ = unix.Close(fd)
			next, ok := up(way, i)
			if !ok {
				err = errAbove
			}
			return "", -1, next, err
		}
		down, err := u.step(fd, join(real, part), part, missing)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			next, err = u.follow(fd, way, i)
		}
		_ = unix.Close(fd)
		if down < 0 {
			return "", -1, next, err
		}
		real, fd = join(real, part), down
	}
	return real, fd, nil, nil
}

// step opens one directory in another, and makes it if it is not there. One
// that is made where the layer has said that something is gone shows nothing
// of what is below.
func (u *unpacker) step(fd int, real, part string, missing bool) (int, error) {
	const how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	down, err := unix.Openat(fd, part, how, 0)
	switch {
	case err == nil || !missing:
		return down, err
	case u.gone[real]:
		if err := unix.Unlinkat(fd, part, 0); err != nil {
			return -1, err
		}
	case !errors.Is(err, unix.ENOENT):
		return -1, err
	}
	if len(real) > longest {
		return -1, fail(Corrupt, "an entry has a name of %d bytes: %.60q…", len(real), real)
	}
	if err := unix.Mkdirat(fd, part, 0o700); err != nil {
		return -1, err
	}
	u.dirs[real] = &directory{opaque: u.gone[real]}
	delete(u.gone, real)
	return unix.Openat(fd, part, how, 0)
}

// follow puts a link's target into the way.
func (u *unpacker) follow(fd int, way []string, i int) ([]string, error) {
	target := make([]byte, longest)
	n, err := unix.Readlinkat(fd, way[i], target)
	if errors.Is(err, unix.EINVAL) {
		return nil, fail(Corrupt, "%.200q is no directory, and an entry is in it", strings.Join(way[:i+1], "/"))
	}
	if err != nil {
		return nil, err
	}
	next := turn(way, i, string(target[:n]))
	if len(next) > longest/2 {
		return nil, fail(Corrupt, "%.60q… has more than %d directories above it", strings.Join(next, "/"), longest/2)
	}
	return next, nil
}

// clear makes room for an entry. wasGone says that the layer has a whiteout
// there.
func (u *unpacker) clear(at place) (wasGone bool, err error) {
	wasGone = u.gone[at.name]
	delete(u.gone, at.name)
	delete(u.owners, at.name)
	if u.dirs[at.name] == nil {
		err := unix.Unlinkat(at.dir, at.base, 0)
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
		return wasGone, err
	}
	below := at.name + "/"
	for name := range u.dirs {
		if name == at.name || strings.HasPrefix(name, below) {
			delete(u.dirs, name)
		}
	}
	for name := range u.gone {
		if strings.HasPrefix(name, below) {
			delete(u.gone, name)
		}
	}
	maps.DeleteFunc(u.owners, func(name string, _ Owner) bool { return strings.HasPrefix(name, below) })
	if u.last == at.name || strings.HasPrefix(u.last, below) {
		u.forget()
	}
	return wasGone, u.tree.RemoveAll(at.name)
}

// making calls make, and once more after clear if something is in the way.
func (u *unpacker) making(at place, make func() error) (wasGone bool, err error) {
	err = make()
	if !errors.Is(err, unix.EEXIST) {
		return false, err
	}
	if wasGone, err = u.clear(at); err != nil {
		return wasGone, err
	}
	return wasGone, make()
}

// hide makes an overlay's whiteout, which any user may. What the same layer has
// there stays: a whiteout is about the layers below.
func (u *unpacker) hide(at place, name string) error {
	if name == "" || name == "." || name == ".." {
		return fail(Corrupt, "%.200q hides nothing", at.name)
	}
	real := join(parentOf(at.name), name)
	if d := u.dirs[real]; d != nil {
		d.opaque = true
		return nil
	}
	err := unix.Mknodat(at.dir, name, unix.S_IFCHR, 0)
	switch {
	case err == nil:
		u.gone[real] = true
		return nil
	case errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.EPERM):
		return fail(Unsupported, "the kernel lets nobody but root hide files of other layers, or the file system cannot: %w", err)
	}
	return err
}

func (u *unpacker) directory(at place, h *tar.Header) error {
	if d := u.dirs[at.name]; d != nil {
		d.header = h
		return nil
	}
	wasGone, err := u.making(at, func() error { return unix.Mkdirat(at.dir, at.base, 0o700) })
	if err != nil {
		return err
	}
	u.dirs[at.name] = &directory{header: h, opaque: wasGone}
	return nil
}

func (u *unpacker) file(at place, h *tar.Header, content io.Reader) error {
	fd := -1
	_, err := u.making(at, func() (err error) {
		fd, err = unix.Openat(at.dir, at.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	err = u.write(fd, content, sparse(h))
	if err == nil {
		err = u.attributes(fd, h, u.mode(h, false))
	}
	if shut := unix.Close(fd); err == nil {
		err = shut
	}
	if err != nil {
		return err
	}
	u.whose(at.name, h)
	return setTime(at, h)
}

func sparse(h *tar.Header) bool {
	_, pax := h.PAXRecords["GNU.sparse.major"]
	_, old := h.PAXRecords["GNU.sparse.map"]
	return pax || old || h.Typeflag == tar.TypeGNUSparse
}

// write copies a file's content. Of a sparse file, what is zero is left out.
func (u *unpacker) write(fd int, content io.Reader, holes bool) error {
	var at int64
	for {
		if err := u.ctx.Err(); err != nil {
			return err // zeroes of a sparse file come without anything being read
		}
		n, end := content.Read(u.buffer)
		piece := u.buffer[:n]
		if !holes || slices.ContainsFunc(piece, func(b byte) bool { return b != 0 }) {
			if err := writeAll(fd, piece, at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(end, io.EOF) {
			break
		}
		if end != nil {
			return end
		}
	}
	if holes {
		return unix.Ftruncate(fd, at)
	}
	return nil
}

func writeAll(fd int, piece []byte, at int64) error {
	for len(piece) > 0 {
		n, err := unix.Pwrite(fd, piece, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		piece, at = piece[n:], at+int64(n)
	}
	return nil
}

// mode is the entry's, without what makes a file run as its owner where the
// owner is not the image's but whoever unpacks.
func (u *unpacker) mode(h *tar.Header, dir bool) uint32 {
	mode := uint32(h.Mode & 0o7777)
	if !u.privileged && !dir {
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	return mode
}

// attributes sets owner, mode and extended attributes in the order in which
// none undoes another.
func (u *unpacker) attributes(fd int, h *tar.Header, mode uint32) error {
	if u.privileged {
		if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	for record, value := range h.PAXRecords {
		name, is := strings.CutPrefix(record, "SCHILY.xattr.")
		if !is {
			continue
		}
		if !attribute(name, u.privileged) {
			u.note("extended attributes: " + name)
			continue
		}
		err := unix.Fsetxattr(fd, name, []byte(value), 0)
		switch {
		case full(err):
			return err
		case err != nil:
			u.note("extended attributes: " + name)
		}
	}
	return nil
}

func setTime(at place, h *tar.Header) error {
	return unix.UtimesNanoAt(at.dir, at.base, times(h.ModTime), unix.AT_SYMLINK_NOFOLLOW)
}

func times(t time.Time) []unix.Timespec {
	stamp, err := unix.TimeToTimespec(t)
	if err != nil {
		stamp = unix.Timespec{}
	}
	return []unix.Timespec{stamp, stamp}
}

func (u *unpacker) symlink(at place, h *tar.Header) error {
	if h.Linkname == "" {
		return fail(Corrupt, "%.200q is a link to nothing", h.Name)
	}
	if len(h.Linkname) >= longest {
		return fail(Corrupt, "%.200q is a link to a name of %d bytes", h.Name, len(h.Linkname))
	}
	if _, err := u.making(at, func() error { return unix.Symlinkat(h.Linkname, at.dir, at.base) }); err != nil {
		return err
	}
	return u.owned(at, h)
}

// owned gives something that is no file and no directory its owner and time.
func (u *unpacker) owned(at place, h *tar.Header) error {
	if u.privileged {
		if err := unix.Fchownat(at.dir, at.base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	u.whose(at.name, h)
	return setTime(at, h)
}

func (u *unpacker) fifo(at place, h *tar.Header) error {
	if _, err := u.making(at, func() error { return unix.Mknodat(at.dir, at.base, unix.S_IFIFO|0o600, 0) }); err != nil {
		return err
	}
	if err := unix.Fchmodat(at.dir, at.base, u.mode(h, false), 0); err != nil {
		return err
	}
	return u.owned(at, h)
}

// link makes a hard link to something that the layer has had before. A link is
// never followed, only those on the way to it.
func (u *unpacker) link(at place, h *tar.Header) error {
	parts, err := split(h.Linkname)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return fail(Corrupt, "%.200q is a hard link to the root", h.Name)
	}
	absent := fail(Corrupt, "%.200q is a hard link to %.200q, which the layer does not have", h.Name, h.Linkname)
	// The directory of at may be closed by the search for the other one.
	dir, err := unix.Openat(at.dir, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	at.dir = dir
	target, err := u.locate(parts, false)
	if errors.Is(err, unix.ENOENT) {
		return absent
	}
	if err != nil {
		return err
	}
	switch {
	case target.name == at.name:
		return nil
	case u.gone[target.name]:
		return absent
	case u.dirs[target.name] != nil:
		return fail(Corrupt, "%.200q is a hard link to a directory", h.Name)
	case strings.HasPrefix(target.name, at.name+"/"):
		return fail(Corrupt, "%.200q is a hard link to something in itself", h.Name)
	}
	_, err = u.making(at, func() error { return unix.Linkat(target.dir, target.base, at.dir, at.base, 0) })
	if errors.Is(err, unix.ENOENT) {
		return absent
	}
	return err
}

// finish gives the directories what could not be theirs while they were
// filled, the deepest first: a directory may be closed to its owner.
func (u *unpacker) finish() error {
	u.forget()
	u.got.Opaque = u.dirs[""].opaque
	names := make([]string, 0, len(u.dirs))
	for name := range u.dirs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range slices.Backward(names) {
		if err := u.seal(name, u.dirs[name]); err != nil {
			return wrap("/"+name, err)
		}
	}
	return nil
}

func (u *unpacker) seal(name string, d *directory) error {
	dir, base := u.root, "."
	if name != "" {
		at, err := u.locate(strings.Split(name, "/"), false)
		if err != nil {
			return err
		}
		dir, base = at.dir, at.base
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if d.opaque && name != "" {
		if err := u.setOpaque(fd); err != nil {
			return err
		}
	}
	h := d.header
	if h == nil {
		return unix.Fchmod(fd, 0o755)
	}
	u.whose(name, h)
	// Before the mode, which may close the directory to its owner.
	if err := unix.UtimesNanoAt(dir, base, times(h.ModTime), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return u.attributes(fd, h, u.mode(h, true))
}

func (u *unpacker) setOpaque(fd int) error {
	name := "user.overlay.opaque"
	if u.privileged {
		name = "trusted.overlay.opaque"
	}
	err := unix.Fsetxattr(fd, name, []byte("y"), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return fail(Unsupported, "the store's file system has no attribute %s: %w", name, err)
	}
	return err
}

// whiteoutFile reports whether something in a layer says that there is nothing.
func whiteoutFile(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && stat.Rdev == 0
}

// opaqueDirectory reports whether a directory hides those of the same name below.
func opaqueDirectory(path string) bool {
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		value := make([]byte, 1)
		if n, err := unix.Lgetxattr(path, name, value); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}
