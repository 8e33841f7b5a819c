package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The names of a project's file.
const (
	FileName     = "locald.toml"
	procfileName = "Procfile"
)

// Find returns the project that dir is in, and its file: the first locald.toml
// in dir or above, else the first Procfile. With file, which is relative to
// dir, it is that file and its directory. Both results are absolute, and the
// directory's symbolic links are resolved. It reads nothing. The error is an
// *Error.
func Find(dir, file string) (projectDir, projectFile string, err error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", "", blame(Pos{File: dir}, "", "%s %v", dir, reason(err))
	}
	// Links first, so that file may begin with ".." and mean what it means to cat.
	if start, err = filepath.EvalSymlinks(start); err != nil {
		return "", "", blame(Pos{File: dir}, "", "%s %v", dir, reason(err))
	}
	if file != "" {
		path := inside(start, file)
		if _, err := os.Stat(path); err != nil {
			return "", "", blame(Pos{File: file}, "", "%s %v", file, reason(err))
		}
		return resolved(path)
	}
	found, err := look(start, func(path string) error {
		_, err := os.Lstat(path)
		return err
	})
	if err != nil {
		return "", "", err
	}
	return filepath.Dir(found), found, nil
}

// resolved is a project's directory and file by the path of the file, which
// may itself be a link: its project is where the link is.
func resolved(path string) (string, string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", "", blame(Pos{File: path}, "", "%s %v", path, reason(err))
	}
	return dir, filepath.Join(dir, filepath.Base(path)), nil
}

// look walks up from start.
func look(start string, exists func(path string) error) (string, error) {
	procfile := ""
	for dir := start; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, FileName)
		switch err := exists(path); {
		case err == nil:
			return path, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", blame(Pos{File: path}, "", "%s %v", path, reason(err))
		}
		if path := filepath.Join(dir, procfileName); procfile == "" && exists(path) == nil {
			procfile = path
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if procfile != "" {
		return procfile, nil
	}
	return "", &Error{Problems: []Problem{{
		Message: "no " + FileName + " here or above (" + start + ")",
		Hint:    `printf '[services.web]\ncommand = "npm start"\n' > ` + FileName,
	}}}
}

// isProcfile reports whether a file is to be read as a Procfile: everything is
// TOML but "Procfile", "Procfile.dev" and "x.Procfile".
func isProcfile(path string) bool {
	name := filepath.Base(path)
	return name == procfileName || strings.HasPrefix(name, procfileName+".") || strings.HasSuffix(name, "."+procfileName)
}

// localFile is the path of the file that is merged over file: locald.local.toml
// beside locald.toml.
func localFile(file string) string {
	extension := filepath.Ext(file)
	return strings.TrimSuffix(file, extension) + ".local" + extension
}
