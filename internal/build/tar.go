package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// outside is what a Dockerfile that is not below the context is called in the
// tar.
const outside = ".locald.Dockerfile"

// DockerfileName is the Dockerfile's name in the tar.
func (c *Context) DockerfileName() string {
	name, err := filepath.Rel(c.dir, c.dockerfile)
	if err != nil || name == ".." || strings.HasPrefix(name, ".."+string(filepath.Separator)) {
		return outside
	}
	return filepath.ToSlash(name)
}

// Tar writes the files to w, and the Dockerfile also where it is excluded or
// elsewhere. All belong to root. A file that changes its length while it is read
// is an error that another try may mend.
func (c *Context) Tar(ctx context.Context, w io.Writer) error {
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return unreadable(err, "")
	}
	defer root.Close()
	a := archive{tar: tar.NewWriter(w), root: root}
	dockerfile, sent := c.DockerfileName(), false
	err = c.walk(ctx, func(m member) error {
		sent = sent || m.name == dockerfile
		return a.add(m)
	})
	if err != nil {
		return err
	}
	if !sent {
		if err := a.addDockerfile(c.dockerfile, dockerfile); err != nil {
			return err
		}
	}
	return a.tar.Close()
}

// archive is a tar that is written.
type archive struct {
	tar  *tar.Writer
	root *os.Root
}

func (a archive) add(m member) error {
	if !m.info.Mode().IsRegular() {
		return a.header(m)
	}
	// It need not be what it was when its directory was read: a link does not lead
	// out of the root, and a pipe is not waited for.
	file, err := a.root.OpenFile(filepath.FromSlash(m.name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unreadable(err, m.name)
	}
	defer file.Close()
	return a.content(m.name, file)
}

func (a archive) addDockerfile(path, name string) error {
	file, err := os.Open(path)
	if err != nil {
		return unreadable(err, "")
	}
	defer file.Close()
	return a.content(name, file)
}

func (a archive) content(name string, file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return unreadable(err, name)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	if err := a.header(member{name: name, info: info}); err != nil {
		return err
	}
	n, err := io.Copy(a.tar, io.LimitReader(file, info.Size()))
	if err == nil && n < info.Size() {
		err = fmt.Errorf("%s became shorter while it was read", name)
	}
	return err
}

func (a archive) header(m member) error {
	h, err := tar.FileInfoHeader(m.info, m.link)
	if err != nil {
		return err
	}
	h.Name = m.name
	if m.info.IsDir() {
		h.Name += "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	// Parts of seconds would take a header of their own for each file.
	h.ModTime, h.AccessTime, h.ChangeTime = m.info.ModTime().Truncate(time.Second), time.Time{}, time.Time{}
	return a.tar.WriteHeader(h)
}
