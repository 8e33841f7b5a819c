package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// project makes a directory with a locald.toml.
func project(t *testing.T, content string) (dir, file string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, FileName)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func TestFilesThatAreNotProjects(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		make func(t *testing.T, file string)
		want string
	}{
		"directory": {
			func(t *testing.T, file string) { try(t, os.Remove(file), os.Mkdir(file, 0o700)) },
			"locald.toml is a directory, not a file\n",
		},
		"too large": {
			func(t *testing.T, file string) { try(t, os.Truncate(file, 50<<20)) },
			"locald.toml is larger than 4 MiB\n",
		},
		"named pipe": {
			func(t *testing.T, file string) { try(t, os.Remove(file), syscall.Mkfifo(file, 0o600)) },
			"locald.toml is not a regular file\n",
		},
		"dangling link": {
			func(t *testing.T, file string) { try(t, os.Remove(file), os.Symlink("nowhere", file)) },
			"locald.toml does not exist\n",
		},
		"not UTF-8": {
			func(t *testing.T, file string) { try(t, os.WriteFile(file, []byte("# ok\n# caf\xe9\n"), 0o600)) },
			"locald.toml:2:6: byte 0xe9 is not UTF-8\nhint: save the file as UTF-8\n",
		},
		"NUL": {
			func(t *testing.T, file string) {
				try(t, os.WriteFile(file, []byte("[services.a]\ncom\x00mand"), 0o600))
			},
			"locald.toml:2:4: there is a NUL byte here: this is not a text file\n",
		},
		"anybody may write": {
			func(t *testing.T, file string) { try(t, os.Chmod(file, 0o606)) },
			"locald.toml can be written by everybody, and what it says would be executed\nhint: chmod go-w FILE\n",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, file := project(t, "[services.web]\ncommand = \"x\"\n")
			c.make(t, file)
			_, err := Load(Options{Dir: dir})
			if got := strings.ReplaceAll(problemLines(err), file, "FILE"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func try(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestWhoMayWriteAProjectFile(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name         string
		mode         fs.FileMode
		owner, group uint32
		want         string
	}{
		{"own", 0o644, 1000, 1000, ""},
		{"own, own group writes", 0o664, 1000, 1000, ""},
		{"own, other group reads", 0o640, 1000, 50, ""},
		{"own, other group writes", 0o664, 1000, 50, "chmod g-w '/p q'"},
		{"own, root's group writes", 0o664, 1000, 0, ""},
		{"root's", 0o644, 0, 0, ""},
		{"root's, everybody writes", 0o666, 0, 0, "chmod go-w '/p q'"},
		{"another's", 0o644, 1001, 1000, "chown 1000 '/p q'"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := hintOf(judge("/p q", c.mode, c.owner, c.group, 1000, 1000)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestFindResolvesLinksAndPrefersTheNearest(t *testing.T) {
	t.Parallel()
	root, file := project(t, "")
	inner := filepath.Join(root, "a", "b")
	try(t, os.MkdirAll(inner, 0o700), os.WriteFile(filepath.Join(root, "a", "Procfile"), nil, 0o600))
	link := filepath.Join(t.TempDir(), "link")
	try(t, os.Symlink(inner, link))

	dir, found, err := Find(link, "")
	if dir != root || found != file || err != nil {
		t.Errorf("above: got %s %s %v", dir, found, err)
	}
	try(t, os.Remove(file))
	dir, found, err = Find(link, "")
	if dir != filepath.Join(root, "a") || found != filepath.Join(root, "a", "Procfile") || err != nil {
		t.Errorf("Procfile: got %s %s %v", dir, found, err)
	}
	dir, found, err = Find(link, "../Procfile")
	if found != filepath.Join(root, "a", "Procfile") || err != nil {
		t.Errorf(".. of a link: got %s %s %v", dir, found, err)
	}
	_, _, err = Find(filepath.Join(root, "gone"), "")
	if want := filepath.Join(root, "gone") + " does not exist\n"; problemLines(err) != want {
		t.Errorf("got %q, want %q", problemLines(err), want)
	}
}

func TestSourcesAreAllThatWasRead(t *testing.T) {
	t.Parallel()
	dir, file := project(t, "[services.web]\ncommand = \"x\"\nenv_file = \"web.env\"\n")
	for name, content := range map[string]string{"locald.local.toml": "", ".env": "A=1\n", "web.env": "B=2\n"} {
		try(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	p, err := Load(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range p.Sources {
		got = append(got, strings.TrimPrefix(s.Path, dir+"/"))
	}
	if want := "locald.toml locald.local.toml .env web.env"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	try(t, os.RemoveAll(dir))
	again, err := Load(Options{Dir: dir, File: file, Read: Recorded(p.Sources)})
	if err != nil || again.Services[0].EnvFiles[0].Vars[0].Value != "2" {
		t.Errorf("played back without the disk: %v", err)
	}
}

// TestAFileOfTheProjectStaysInIt: what is written as a file of the project is
// not read from somewhere else through a link; what is written as somewhere else
// is.
func TestAFileOfTheProjectStaysInIt(t *testing.T) {
	t.Parallel()
	t.Attr("promise", "S16")
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, secret := filepath.Join(root, "project"), filepath.Join(root, "secret.env")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(secret, "A=1\n")
	write(filepath.Join(dir, "real.env"), "A=1\n")
	for name, target := range map[string]string{"out.env": secret, "sub/up.env": "../../secret.env", "in.env": "real.env", "away": root} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for file, fine := range map[string]bool{
		"real.env": true, "in.env": true, "../secret.env": true, secret: true,
		"out.env": false, "sub/up.env": false, "away/secret.env": false,
	} {
		write(filepath.Join(dir, "locald.toml"), "[services.web]\ncommand = \"x\"\nenv_file = [\""+file+"\"]\n")
		_, err := Load(Options{Dir: dir})
		var all *Error
		switch {
		case fine && err != nil:
			t.Errorf("%s: %v", file, err)
		case !fine && (!errors.As(err, &all) || !strings.Contains(err.Error(), "outside of the project") || all.Problems[0].Pos.Line != 3 || !strings.Contains(all.Problems[0].Hint, secret)):
			t.Errorf("%s: %v", file, err)
		}
	}
	write(filepath.Join(dir, "locald.toml"), "[services.web]\ncommand = \"x\"\n")
	if err := os.Symlink(secret, filepath.Join(dir, ".env")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), ".env is a link to "+secret) {
		t.Errorf(".env: %v", err)
	}
}
