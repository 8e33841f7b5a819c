package build_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/locald/locald/internal/build"
	"github.com/locald/locald/runtime"
)

// tree writes files, by their names, below a new directory.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	return dir
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *build.Context {
	t.Helper()
	c, err := build.Open(dir, filepath.Join(dir, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// packed is the members of the tar as people list them, with the content of
// small files.
func packed(t *testing.T, c *build.Context) string {
	t.Helper()
	var buffer bytes.Buffer
	if err := c.Tar(t.Context(), &buffer); err != nil {
		t.Fatal(err)
	}
	var lines []string
	r := tar.NewReader(&buffer)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(lines, "\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%v %d:%d %s %s%s", h.FileInfo().Mode(), h.Uid, h.Gid, h.Name, h.Linkname, content), " "))
	}
}

func TestTarHasWhatIsNotExcluded(t *testing.T) {
	t.Parallel()
	const dockerfile = "-rw-r--r-- 0:0 Dockerfile F"
	for _, test := range []struct {
		name   string
		ignore string
		files  map[string]string
		want   []string
	}{
		{"everything", "", map[string]string{"a/b/c": "1", ".hidden": "2"}, []string{
			"-rw-r--r-- 0:0 .hidden 2", dockerfile, "drwxr-xr-x 0:0 a/", "drwxr-xr-x 0:0 a/b/", "-rw-r--r-- 0:0 a/b/c 1",
		}},
		{"a directory", "node_modules\n", map[string]string{"node_modules/x/y": "1", "web/node_modules/z": "2"}, []string{
			"-rw-r--r-- 0:0 .dockerignore node_modules\n", dockerfile, "drwxr-xr-x 0:0 web/", "drwxr-xr-x 0:0 web/node_modules/", "-rw-r--r-- 0:0 web/node_modules/z 2",
		}},
		{"at any depth, but one", "# comment\n**/*.log\n!keep/this.log\n.dockerignore\n", map[string]string{"a.log": "", "b/c.log": "", "keep/this.log": "k"}, []string{
			dockerfile, "drwxr-xr-x 0:0 b/", "drwxr-xr-x 0:0 keep/", "-rw-r--r-- 0:0 keep/this.log k",
		}},
		{"all, but what is needed", "*\n!src\n!**/go.mod\n", map[string]string{"src/a": "a", "tools/go.mod": "m", "tools/x": "x", "y": "y"}, []string{
			"drwxr-xr-x 0:0 src/", "-rw-r--r-- 0:0 src/a a", "-rw-r--r-- 0:0 tools/go.mod m", dockerfile,
		}},
		{"the Dockerfile", "Dockerfile\n.dockerignore\n", map[string]string{"a": "a"}, []string{"-rw-r--r-- 0:0 a a", dockerfile}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.files["Dockerfile"] = "F"
			if test.ignore != "" {
				test.files[".dockerignore"] = test.ignore
			}
			if got, want := packed(t, open(t, tree(t, test.files))), strings.Join(test.want, "\n"); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestADockerfileMayBeElsewhereAndHaveItsOwnDockerignore(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{
		"app/a": "a", "app/b": "b", "app/.dockerignore": "*\n",
		"docker/dev": "F", "docker/dev.dockerignore": "b\n.dockerignore\n",
	})
	c, err := build.Open(filepath.Join(dir, "app"), filepath.Join(dir, "docker/dev"))
	if err != nil {
		t.Fatal(err)
	}
	want := "-rw-r--r-- 0:0 a a\n-rw-r--r-- 0:0 " + c.DockerfileName() + " F"
	if got := packed(t, c); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestLinksStayLinksAndWhatIsNoFileIsLeftOut(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"Dockerfile": "F", "run.sh": "s"})
	if err := os.Chmod(filepath.Join(dir, "run.sh"), 0o750); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"out": "/etc/passwd", "nowhere": "gone", "dir": ".."} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	want := "-rw-r--r-- 0:0 Dockerfile F\nLrwxrwxrwx 0:0 dir ..\nLrwxrwxrwx 0:0 nowhere gone\nLrwxrwxrwx 0:0 out /etc/passwd\n-rwxr-x--- 0:0 run.sh s"
	if got := packed(t, open(t, dir)); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestAContextThatChangesWhileItIsSent has the reader stop in the middle of a
// large file while others change.
func TestAContextThatChangesWhileItIsSent(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		name, want string
		change     func(dir string) error
	}{
		{"what vanished is left out", "", func(dir string) error { return os.Remove(filepath.Join(dir, "z")) }},
		{"what grew has its former length", "", func(dir string) error { return os.WriteFile(filepath.Join(dir, "large"), []byte(large+large), 0o600) }},
		{"what became shorter is an error", "large became shorter while it was read", func(dir string) error { return os.Truncate(filepath.Join(dir, "large"), 10) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, map[string]string{"Dockerfile": "F", "large": large, "z": "z"})
			read, write := io.Pipe()
			c := open(t, dir)
			result := make(chan error, 1)
			go func() {
				err := c.Tar(t.Context(), write)
				_ = write.CloseWithError(err)
				result <- err
			}()
			r := tar.NewReader(read)
			names := ""
			for {
				h, err := r.Next()
				if err != nil {
					break
				}
				names += h.Name + " "
				if h.Name != "large" {
					continue
				}
				if err := test.change(dir); err != nil {
					t.Error(err)
				}
			}
			_ = read.CloseWithError(errors.New("read to its end"))
			err := <-result
			switch {
			case test.want != "" && (err == nil || err.Error() != test.want || errors.Is(err, runtime.ErrInvalid)):
				t.Errorf("Tar = %v; want %q, which another try may mend", err, test.want)
			case test.want == "" && (err != nil || !strings.HasPrefix(names, "Dockerfile large")):
				t.Errorf("Tar = %v, after %q", err, names)
			}
		})
	}
}

func TestDigestTellsWhatHasChanged(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		change  func(dir string) error
		differs bool
	}{
		{"nothing", func(string) error { return nil }, false},
		{"a file", func(dir string) error { return os.WriteFile(filepath.Join(dir, "src/a"), []byte("longer"), 0o600) }, true},
		{"only its time", func(dir string) error {
			return os.Chtimes(filepath.Join(dir, "src/a"), time.Time{}, time.Unix(1, 1))
		}, true},
		{"a mode", func(dir string) error { return os.Chmod(filepath.Join(dir, "src/a"), 0o755) }, true},
		{"a name", func(dir string) error { return os.Rename(filepath.Join(dir, "src/a"), filepath.Join(dir, "src/b")) }, true},
		{"a new directory", func(dir string) error { return os.Mkdir(filepath.Join(dir, "empty"), 0o755) }, true},
		{"a link", func(dir string) error {
			if err := os.Remove(filepath.Join(dir, "link")); err != nil {
				return err
			}
			return os.Symlink("b", filepath.Join(dir, "link"))
		}, true},
		{"the Dockerfile", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM other"), 0o600)
		}, true},
		{"what is excluded", func(dir string) error { return os.WriteFile(filepath.Join(dir, "log/new"), nil, 0o600) }, false},
		{"what git keeps", func(dir string) error { return os.WriteFile(filepath.Join(dir, ".git/index"), nil, 0o600) }, false},
		{"the project's file", func(dir string) error { return os.WriteFile(filepath.Join(dir, "locald.toml"), nil, 0o600) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, map[string]string{
				"Dockerfile": "F", ".dockerignore": "log\nDockerfile\n", "src/a": "a", "log/old": "", ".git/HEAD": "", "locald.toml": "x",
			})
			if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			before := digest(t, dir)
			if err := test.change(dir); err != nil {
				t.Fatal(err)
			}
			if after := digest(t, dir); (after != before) != test.differs {
				t.Errorf("differs: %v, want %v", after != before, test.differs)
			}
		})
	}
}

func digest(t *testing.T, dir string) string {
	t.Helper()
	d, err := open(t, dir).Digest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWhatIsMissingIsSaidWithItsPath(t *testing.T) {
	t.Parallel()
	dir := tree(t, map[string]string{"app/Dockerfile": "F", "bad/Dockerfile": "F", "bad/.dockerignore": "a[\n"})
	for _, test := range []struct{ context, dockerfile, want, hint string }{
		{"none", "none/Dockerfile", "context " + dir + "/none does not exist", "mkdir -p " + dir + "/none"},
		{"app/Dockerfile", "app/Dockerfile", "context " + dir + "/app/Dockerfile is not a directory", ""},
		{"app", "app/Other", "Dockerfile " + dir + "/app/Other does not exist", "dockerfile"},
		{"app", "app", "Dockerfile " + dir + "/app is not a file", ""},
		{"bad", "bad/Dockerfile", dir + "/bad/.dockerignore: ", ""},
	} {
		_, err := build.Open(filepath.Join(dir, test.context), filepath.Join(dir, test.dockerfile))
		fault, ok := errors.AsType[*runtime.Fault](err)
		if !ok || fault.Code != "config_invalid" || !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), test.want) || !strings.Contains(fault.Hint, test.hint) {
			t.Errorf("%s, %s: %v, %+v; want config_invalid with %q", test.context, test.dockerfile, err, fault, test.want)
		}
	}
}

func TestWhatMayNotBeReadCanBeExcluded(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := tree(t, map[string]string{"Dockerfile": "F", "data/secret": "s"})
	if err := os.Chmod(filepath.Join(dir, "data/secret"), 0); err != nil {
		t.Fatal(err)
	}
	err := open(t, dir).Tar(t.Context(), io.Discard)
	fault, ok := errors.AsType[*runtime.Fault](err)
	if !ok || !errors.Is(err, fs.ErrPermission) || fault.Hint != "echo /data/secret >> .dockerignore" {
		t.Errorf("Tar = %v, %+v", err, fault)
	}
}
