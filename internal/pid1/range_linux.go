package pid1

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FindRange returns the range that this machine gives the user of this process:
// root of a container is the user himself, and the others are those of
// /etc/subuid and /etc/subgid. The *Error says what is missing.
func FindRange() (*Range, error) { return findRange(os.Geteuid(), os.Getegid()) }

func findRange(uid, gid int) (*Range, error) {
	id := strconv.Itoa(uid)
	name := id
	if u, err := user.LookupId(id); err == nil {
		name = u.Username
	}
	var r Range
	var err error
	for _, part := range []struct {
		program, file string
		own           int
		path          *string
		ids           *[]IDs
	}{
		{"newuidmap", "/etc/subuid", uid, &r.NewUIDMap, &r.UIDs},
		{"newgidmap", "/etc/subgid", gid, &r.NewGIDMap, &r.GIDs},
	} {
		if *part.path, err = exec.LookPath(part.program); err != nil {
			return nil, &Error{Kind: Forbidden, What: "range of users", Why: part.program + " is not installed", Hint: "sudo apt-get install uidmap"}
		}
		if *part.ids, err = subordinates(part.file, name, id, part.own); err != nil {
			return nil, err
		}
	}
	return &r, nil
}

// subordinates are the user himself and what a file gives him.
func subordinates(file, name, id string, own int) ([]IDs, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fail(Forbidden, "range of users", err)
	}
	ids := []IDs{{First: 0, Host: uint32(own), Count: 1}}
	next := uint32(1)
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	for lines.Scan() {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 || fields[0] != name && fields[0] != id {
			continue
		}
		first, bad := strconv.ParseUint(fields[1], 10, 32)
		count, worse := strconv.ParseUint(fields[2], 10, 32)
		if bad != nil || worse != nil || count == 0 || uint64(next)+count > 1<<32-1 {
			continue
		}
		ids = append(ids, IDs{First: next, Host: uint32(first), Count: uint32(count)})
		next += uint32(count)
	}
	if len(ids) == 1 {
		return nil, &Error{
			Kind: Forbidden, What: "range of users", Why: fmt.Sprintf("%s has none for %s", file, name),
			Hint: "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + name,
		}
	}
	return ids, nil
}

// give has the system write the range for a process that waits for it.
func (r *Range) give(pid int) error {
	for _, part := range []struct {
		program string
		ids     []IDs
	}{{r.NewUIDMap, r.UIDs}, {r.NewGIDMap, r.GIDs}} {
		arguments := []string{strconv.Itoa(pid)}
		for _, n := range part.ids {
			arguments = append(arguments, fmt.Sprint(n.First), fmt.Sprint(n.Host), fmt.Sprint(n.Count))
		}
		cmd := exec.Command(part.program, arguments...)
		cmd.Env = []string{} // the container's is not for it
		if out, err := cmd.CombinedOutput(); err != nil {
			return &Error{
				Kind: Forbidden, What: "range of users", Why: fmt.Sprintf("%s: %v: %s", filepath.Base(part.program), err, strings.TrimSpace(string(out))),
				Hint: "sudo apt-get install --reinstall uidmap", cause: err,
			}
		}
	}
	return nil
}

// removeAsRange deletes what only users of a range can, or root among them.
// Without a range it is not deleted, why tells.
func removeAsRange(dir string, why error) error {
	r, err := FindRange()
	if err != nil || os.Geteuid() == 0 {
		return why
	}
	return r.do(chore{Remove: dir})
}

// Own gives what is in a directory its owners and modes. What is not there is
// left out.
func (r *Range) Own(dir string, owners []Owner) error {
	return r.do(chore{Own: dir, Owners: owners})
}

// do does a chore in a process of its own.
func (r *Range) do(c chore) error {
	s := Spec{Range: r, HostNetwork: true}
	cmd, conn, e := startInner(&s, groups{})
	if e != nil {
		return e
	}
	defer func() {
		_ = conn.Close()
		_ = cmd.Wait() // it has told what there is to tell
	}()
	if err := conn.send(hello{Spec: s, Rootless: true, Chore: &c}); err != nil {
		return asError("range of users", err)
	}
	var answer report
	files, err := conn.receive(&answer)
	closeAll(files)
	if err != nil {
		return fail(Failed, "range of users", err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	return nil
}

// report does it and tells how that went.
func (c *chore) report(to connection) int {
	if err := c.do(); err != nil {
		_ = to.send(report{Error: asError("files of other users", err)})
		return ExitFailed
	}
	_ = to.send(report{Ended: true}) // if nobody is there, nobody asks
	return 0
}

// do is what the process does.
func (c *chore) do() error {
	if c.Remove != "" {
		return remove(c.Remove)
	}
	root, err := unix.Open(c.Own, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for _, o := range c.Owners {
		if err := o.give(root); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
	}
	return nil
}

// give sets owner and mode, in that order: the first takes from the second.
func (o *Owner) give(root int) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	dir, err := unix.Openat2(root, path.Dir(string(o.Name)), &how)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	base := path.Base(string(o.Name))
	if err := unix.Fchownat(dir, base, o.UID, o.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if o.Mode == 0 {
		return nil
	}
	return unix.Fchmodat(dir, base, o.Mode, 0)
}
