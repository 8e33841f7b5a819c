package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree prints what is below dir: type, mode, name, content or target.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if p == dir {
			return err
		}
		info, err := os.Lstat(p)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&out, "%v %s", info.Mode(), name)
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(p)
			fmt.Fprintf(&out, " %q", content)
			if err != nil {
				fmt.Fprintf(&out, " %v", errors.Unwrap(err))
			}
		case info.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			fmt.Fprintf(&out, " -> %s", to)
		case info.IsDir() && opaqueDirectory(p):
			out.WriteString(" opaque")
		}
		out.WriteString("\n")
		if info.IsDir() && info.Mode().Perm()&0o500 != 0o500 {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func unpackHere(t *testing.T, entries ...entry) (dir string, got *contents, err error) {
	t.Helper()
	base := t.TempDir()
	t.Cleanup(func() { _ = removeTree(base) })
	dir = filepath.Join(base, "fs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	got, _, err = unpack(t.Context(), dir, bytes.NewReader(archive(t, entries...)), privileged(base), false)
	return dir, got, err
}

func with(e entry, set func(*tar.Header)) entry {
	set(&e.Header)
	return e
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 200)
	for _, test := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"parents that nothing mentions", []entry{file("a/b/c", "x")}, "drwxr-xr-x a\ndrwxr-xr-x a/b\n-rw-r--r-- a/b/c \"x\"\n"},
		{"names from the root", []entry{file("/etc/a", "x"), file("./etc/b", "y"), file("etc/../c", "z")}, "-rw-r--r-- c \"z\"\ndrwxr-xr-x etc\n-rw-r--r-- etc/a \"x\"\n-rw-r--r-- etc/b \"y\"\n"},
		{"long names", []entry{dir("d", 0o755), file("d/"+long+"/"+long, "x")}, "drwxr-xr-x d\ndrwxr-xr-x d/" + long + "\n-rw-r--r-- d/" + long + "/" + long + " \"x\"\n"},
		{"twice", []entry{file("a", "first"), file("a", "second")}, "-rw-r--r-- a \"second\"\n"},
		{"a file instead of a directory", []entry{file("d/e/f", "x"), file("d", "y")}, "-rw-r--r-- d \"y\"\n"},
		{"a directory instead of a file", []entry{file("d", "x"), file("d2", "x"), dir("d", 0o750)}, "drwxr-x--- d\n-rw-r--r-- d2 \"x\"\n"},
		{"a directory instead of a link", []entry{dir("to", 0o755), link("l", "to"), dir("l", 0o755), file("l/f", "x")}, "drwxr-xr-x l\n-rw-r--r-- l/f \"x\"\ndrwxr-xr-x to\n"},
		{"a directory again", []entry{dir("d", 0o755), file("d/f", "x"), dir("d", 0o700)}, "drwx------ d\n-rw-r--r-- d/f \"x\"\n"},
		{"a link replaced by a file", []entry{file("f", "x"), link("l", "f"), file("l", "y")}, "-rw-r--r-- f \"x\"\n-rw-r--r-- l \"y\"\n"},
		{"read-only parents", []entry{dir("d", 0o555), dir("d/e", 0o500), file("d/e/f", "x")}, "dr-xr-xr-x d\ndr-x------ d/e\n-rw-r--r-- d/e/f \"x\"\n"},
		{"through links inside", []entry{dir("usr", 0o755), dir("usr/bin", 0o755), link("bin", "usr/bin"), link("abs", "/usr"), file("bin/a", "x"), file("abs/b", "y")}, "Lrwxrwxrwx abs -> /usr\nLrwxrwxrwx bin -> usr/bin\ndrwxr-xr-x usr\n-rw-r--r-- usr/b \"y\"\ndrwxr-xr-x usr/bin\n-rw-r--r-- usr/bin/a \"x\"\n"},
		{"a link outside with nothing behind", []entry{link("l", "../../../etc/passwd")}, "Lrwxrwxrwx l -> ../../../etc/passwd\n"},
		{"a link's .. is from where it leads", []entry{dir("a", 0o755), dir("a/b", 0o755), link("l", "a/b"), link("m", "l/../c"), dir("a/c", 0o755), file("m/f", "x")}, "drwxr-xr-x a\ndrwxr-xr-x a/b\ndrwxr-xr-x a/c\n-rw-r--r-- a/c/f \"x\"\nLrwxrwxrwx l -> a/b\nLrwxrwxrwx m -> l/../c\n"},
		{"a link to / is the image's", []entry{link("l", "/"), file("l/f", "x")}, "-rw-r--r-- f \"x\"\nLrwxrwxrwx l -> /\n"},
		{"hard links", []entry{file("a", "x"), hard("b", "a"), hard("c/d", "/a")}, "-rw-r--r-- a \"x\"\n-rw-r--r-- b \"x\"\ndrwxr-xr-x c\n-rw-r--r-- c/d \"x\"\n"},
		{"a hard link to a link", []entry{link("l", "/etc/passwd"), hard("h", "l")}, "Lrwxrwxrwx h -> /etc/passwd\nLrwxrwxrwx l -> /etc/passwd\n"},
		{"a fifo", []entry{{tar.Header{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o622}, ""}}, "prw--w--w- p\n"},
		{"device nodes", []entry{{tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8}, ""}, {tar.Header{Typeflag: tar.TypeChar, Name: "gone"}, ""}, file("f", "x")}, "-rw-r--r-- f \"x\"\n"},
		{"whiteouts", []entry{dir("d", 0o755), file("d/.wh.f", ""), file(".wh.g", "")}, "drwxr-xr-x d\nDc--------- d/f\nDc--------- g\n"},
		{"whiteouts beside what is there", []entry{file("a", "x"), file(".wh.a", ""), file("d/f", "x"), file(".wh.d", "")}, "-rw-r--r-- a \"x\"\ndrwxr-xr-x d opaque\n-rw-r--r-- d/f \"x\"\n"},
		{"what follows its whiteout", []entry{file(".wh.a", ""), file("a", "x"), file(".wh.d", ""), dir("d", 0o755), file(".wh.e", ""), file("e/f", "y")}, "-rw-r--r-- a \"x\"\ndrwxr-xr-x d opaque\ndrwxr-xr-x e opaque\n-rw-r--r-- e/f \"y\"\n"},
		{"opaque", []entry{file("d/.wh..wh..opq", ""), file("d/f", "x")}, "drwxr-xr-x d opaque\n-rw-r--r-- d/f \"x\"\n"},
		{"reserved names", []entry{file(".wh..wh.plnk/1", "x"), file(".wh.d/f", "x"), file("f", "x")}, "-rw-r--r-- f \"x\"\n"},
		{"nothing", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir, _, err := unpackHere(t, test.entries...)
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, dir); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

// TestNothingLeavesTheRoot: each is refused, and nothing beside the root is
// touched.
func TestNothingLeavesTheRoot(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		entries []entry
		kind    Kind
	}{
		{"..", []entry{file("../evil", "x")}, Unsafe},
		{".. further down", []entry{file("a/../../evil", "x")}, Unsafe},
		{"absolute ..", []entry{file("/../evil", "x")}, Unsafe},
		{"a directory", []entry{dir("..", 0o777)}, Unsafe},
		{"a link", []entry{link("l", ".."), file("l/evil", "x")}, Unsafe},
		{"a long link", []entry{dir("a", 0o755), link("a/l", "../../"), file("a/l/evil", "x")}, Unsafe},
		{"a link on a link", []entry{link("m", "l/.."), link("l", "."), file("m/evil", "x")}, Unsafe},
		{"a whiteout", []entry{file("../.wh.evil", "")}, Unsafe},
		{"a whiteout behind a link", []entry{link("l", ".."), file("l/.wh.evil", "")}, Unsafe},
		{"a whiteout of ..", []entry{file(".wh...", "")}, Corrupt},
		{"opaque behind a link", []entry{link("l", ".."), file("l/.wh..wh..opq", "")}, Unsafe},
		{"a hard link", []entry{hard("evil", "../secret")}, Unsafe},
		{"a hard link behind a link", []entry{link("l", ".."), hard("evil", "l/secret")}, Unsafe},
		{"a hard link to what is not there", []entry{hard("evil", "/etc/passwd")}, Corrupt},
		{"a hard link to a directory", []entry{dir("d", 0o755), hard("e", "d")}, Corrupt},
		{"links in a circle", []entry{link("a", "b"), link("b", "a"), file("a/f", "x")}, Corrupt},
		{"a file as a directory", []entry{file("f", "x"), file("f/evil", "x")}, Corrupt},
		{"owners that are none", []entry{with(file("f", "x"), func(h *tar.Header) { h.Uid = -1 })}, Corrupt},
		{"a name that no kernel takes", []entry{file(strings.Repeat("d/", 3000)+"f", "x")}, Corrupt},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			t.Cleanup(func() { _ = removeTree(base) })
			if err := errors.Join(os.WriteFile(base+"/secret", []byte("s"), 0o600), os.Mkdir(base+"/fs", 0o700)); err != nil {
				t.Fatal(err)
			}
			_, _, err := unpack(t.Context(), base+"/fs", bytes.NewReader(archive(t, test.entries...)), privileged(base), false)
			if !IsKind(err, test.kind) {
				t.Errorf("unpack = %v; want %s", err, test.kind)
			}
			entries, err := os.ReadDir(base)
			if err != nil || len(entries) != 2 {
				t.Errorf("beside the root: %v, %v", entries, err)
			}
			if info, err := os.Stat(base + "/secret"); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 1 || info.Mode() != 0o600 {
				t.Errorf("secret = %v, %v", info, err)
			}
		})
	}
}

// TestModesAndOwners: as root all of it, otherwise what is the user's to give.
func TestModesAndOwners(t *testing.T) {
	t.Parallel()
	when := time.Unix(1_000_000_000, 0)
	set := func(e entry) entry {
		return with(e, func(h *tar.Header) {
			h.Uid, h.Gid, h.ModTime, h.Format = 12, 34, when, tar.FormatPAX
			h.PAXRecords = map[string]string{
				"SCHILY.xattr.user.colour": "blue", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc",
				"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			}
		})
	}
	closed := set(dir("closed", 0))
	closed.PAXRecords = nil
	path, got, err := unpackHere(t, set(with(file("su", "x"), func(h *tar.Header) { h.Mode = 0o6755 })), set(dir("tmp", 0o3777)), closed, file("closed/f", "x"), set(file("none", "")), set(link("l", "su")))
	if err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	mode := map[bool]fs.FileMode{true: 0o755 | fs.ModeSetuid | fs.ModeSetgid, false: 0o755}[root]
	for name, want := range map[string]fs.FileMode{"su": mode, "tmp": 0o777 | fs.ModeDir | fs.ModeSticky | fs.ModeSetgid, "closed": fs.ModeDir, "none": 0o644, "l": 0o777 | fs.ModeSymlink} {
		info, err := os.Lstat(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want || !info.ModTime().Equal(when) {
			t.Errorf("%s is %v of %v; want %v of %v", name, info.Mode(), info.ModTime(), want, when)
		}
		if stat := info.Sys().(*syscall.Stat_t); root && (stat.Uid != 12 || stat.Gid != 34) || !root && stat.Uid != uint32(os.Getuid()) {
			t.Errorf("%s belongs to %d:%d", name, stat.Uid, stat.Gid)
		}
	}
	value := make([]byte, 100)
	if n, err := unix.Lgetxattr(filepath.Join(path, "su"), "user.colour", value); err != nil && !errors.Is(err, unix.ENOTSUP) || err == nil && string(value[:n]) != "blue" {
		t.Errorf("user.colour = %q, %v", value[:max(n, 0)], err)
	}
	_, err = unix.Lgetxattr(filepath.Join(path, "su"), "security.capability", value)
	if root != (err == nil) {
		t.Errorf("security.capability: %v", err)
	}
	if opaqueDirectory(filepath.Join(path, "tmp")) {
		t.Error("an image can say what the overlay is to make of it")
	}
	if !slices.Contains(got.Notes, "extended attributes: trusted.overlay.redirect") {
		t.Errorf("notes = %q", got.Notes)
	}
	if err := removeTree(path); err != nil {
		t.Errorf("closed directories cannot be removed: %v", err)
	}
}

func TestSparseFilesStaySparse(t *testing.T) {
	t.Parallel()
	tarred := filepath.Join(t.TempDir(), "a.tar")
	source := t.TempDir()
	f, err := os.Create(filepath.Join(source, "f"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("end"), 100<<20)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "posix"} {
		if out, err := exec.CommandContext(t.Context(), "tar", "--sparse", "--format="+format, "-cf", tarred, "-C", source, "f").CombinedOutput(); err != nil {
			t.Skipf("tar: %v %s", err, out)
		}
		content, err := os.ReadFile(tarred)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if _, _, err := unpack(t.Context(), dir, bytes.NewReader(content), privileged(dir), false); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "f"))
		if err != nil || info.Size() != 100<<20+3 || info.Sys().(*syscall.Stat_t).Blocks > 2048 {
			t.Errorf("%s: %+v, %v; want 100 MiB and a hole", format, info.Sys(), err)
		}
	}
}

// TestTheOverlayShowsTheImage mounts layers as a container would and compares
// what it shows.
func TestTheOverlayShowsTheImage(t *testing.T) {
	t.Parallel()
	r, s := listen(t), newStore(t, Options{})
	bottom := layerOf(t, file("gone", "x"), file("kept", "x"), file("dir/old", "x"), file("merged/a", "x"), file("hidden/old", "x"), file("file/f", "x"), link("link", "kept"))
	same := layerOf(t, file("same", "x"))
	top := layerOf(t, file(".wh.gone", ""), file("dir/.wh..wh..opq", ""), file("dir/new", "x"), file("merged/b", "x"), file(".wh.hidden", ""), file("hidden/new", "x"), file("file", "x"), dir("link", 0o755))
	image, err := s.Pull(t.Context(), push(t, r, "app:1", imageOf(t, same, bottom, same, top)), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	t.Cleanup(func() { _ = removeTree(work) })
	for _, dir := range []string{"up", "work", "m"} {
		if err := os.Mkdir(filepath.Join(work, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	options := "lowerdir=" + strings.Join(image.Layers, ":") + ",upperdir=up,workdir=work"
	enter := []string{"--mount"}
	if s.UserXattr() {
		options += ",userxattr"
		enter = append(enter, "--user", "--map-root-user")
	}
	script := `mount -t overlay overlay -o "$1" m && cd m && find . -mindepth 1 | sort`
	command := exec.CommandContext(t.Context(), "unshare", append(enter, "sh", "-c", script, "sh", options)...)
	command.Dir = work
	out, err := command.CombinedOutput()
	if err != nil {
		t.Skipf("no overlay here: %v %s", err, out)
	}
	want := "./dir\n./dir/new\n./file\n./hidden\n./hidden/new\n./kept\n./link\n./merged\n./merged/a\n./merged/b\n./same\n"
	if string(out) != want {
		t.Errorf("the overlay shows\n%swant\n%s", out, want)
	}

	opaqueRoot := layerOf(t, file(".wh..wh..opq", ""), file("only", "x"))
	image, err = s.Pull(t.Context(), push(t, r, "app:2", imageOf(t, bottom, opaqueRoot)), PullOptions{})
	if err != nil || len(image.Layers) != 1 {
		t.Errorf("layers above an opaque root = %v, %v; want one", image, err)
	}
}

func TestUserThroughLayers(t *testing.T) {
	t.Parallel()
	r, s := listen(t), newStore(t, Options{})
	bottom := layerOf(t, file("etc/passwd", "old:x:1:1::/old:/bin/sh\n"), file("real/group", "# none\nwheel:x:10:root,ana\nstaff:x:20:ana\n\nbroken\n"), link("etc/group", "../real/group"))
	top := layerOf(t, file("etc/passwd", "ana:x:7:8:Ana:/home/ana:/bin/sh\n"))
	image, err := s.Pull(t.Context(), push(t, r, "app:1", imageOf(t, bottom, top)), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := image.User("ana")
	if want := (User{7, 8, []uint32{10, 20}, "ana", "/home/ana"}); err != nil || fmt.Sprint(u) != fmt.Sprint(want) {
		t.Errorf("User = %+v, %v; want %+v", u, err, want)
	}
	if _, err := image.User("old"); !IsKind(err, NotFound) {
		t.Errorf("a user of a lower file = %v", err)
	}
	if u, err := image.User("ana:staff"); err != nil || u.GID != 20 || u.Groups != nil {
		t.Errorf("with a group: %+v, %v", u, err)
	}
	away := layerOf(t, link("etc/passwd", "../../../../../../../../etc/passwd"), file("etc/.wh.group", ""))
	image, err = s.Pull(t.Context(), push(t, r, "app:2", imageOf(t, bottom, away)), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := image.User("root"); err == nil {
		t.Errorf("User from the host's file = %+v", u)
	}
}

// FuzzUnpack: whatever a tar says, nothing beside the root changes.
func FuzzUnpack(f *testing.F) {
	for _, seed := range [][]entry{
		{file("a", "x"), hard("b", "a"), link("c", "a"), dir("d", 0)},
		{link("l", ".."), file("l/evil", "x")},
		{link("l", "/"), file("l/l/l/f", "x"), file("l", "y")},
		{file("d/.wh.f", ""), file(".wh.d", ""), file("d/g", "x"), file("d/.wh..wh..opq", "")},
		{file("d/e/f", "x"), hard("d", "d/e/f"), file("d/e", "y")},
		{hard("x", "../secret"), file("../secret", "y")},
	} {
		f.Add(archive(f, seed...))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > 64<<10 {
			return
		}
		base := t.TempDir()
		defer func() { _ = removeTree(base) }()
		if err := errors.Join(os.MkdirAll(base+"/fs", 0o700), os.MkdirAll(base+"/other", 0o700), os.WriteFile(base+"/secret", []byte("s"), 0o600)); err != nil {
			t.Fatal(err)
		}
		root := privileged(base)
		before := outside(t, base)
		_, _, _ = unpack(t.Context(), base+"/fs", bytes.NewReader(content), root, false)
		if after := outside(t, base); after != before {
			t.Errorf("beside the root there was\n%sand is\n%s", before, after)
		}
	})
}

// outside says all that could change beside the root, and the root itself
// except for what may.
func outside(t *testing.T, base string) string {
	t.Helper()
	var out strings.Builder
	for _, name := range []string{".", "other", "secret"} {
		var stat unix.Stat_t
		if err := unix.Lstat(filepath.Join(base, name), &stat); err != nil {
			t.Fatal(err)
		}
		entries, _ := os.ReadDir(filepath.Join(base, name))
		fmt.Fprintln(&out, name, stat.Mode, stat.Uid, stat.Gid, stat.Nlink, stat.Size, stat.Mtim, stat.Ctim, len(entries))
	}
	return out.String()
}
