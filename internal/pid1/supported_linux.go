package pid1

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Supported finds out by making one whether the user of this process can have
// containers with directories in dir, which is where it writes for that. The
// *Error says what is in the way and what helps. It takes as long as a start.
func Supported(dir string) error {
	base, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return fail(Failed, "directory "+dir, err)
	}
	err = probe(base)
	return errors.Join(err, Remove(base))
}

func probe(dir string) error {
	s := Spec{Dir: dir, UserXattr: os.Geteuid() != 0}
	if err := s.prepare(); err != nil {
		return asError("directory "+dir, err)
	}
	cmd, conn, e := startInner(&s, groups{})
	if e != nil {
		return e
	}
	defer func() {
		_ = conn.Close()
		_ = cmd.Wait() // it has told what there is to tell
	}()
	if err := conn.send(hello{Spec: s, Rootless: os.Geteuid() != 0, Probe: true}); err != nil {
		return asError("probe", err)
	}
	var r report
	files, err := conn.receive(&r)
	closeAll(files)
	if err != nil {
		return fail(Failed, "probe", err)
	}
	if r.Error != nil {
		return r.Error
	}
	return nil
}

// forbidden is the error of something that only an unusual machine refuses. It
// looks for what makes it unusual.
func forbidden(what string, err error) *Error {
	e := fail(Forbidden, what, err)
	e.Why, e.Hint = whyForbidden(err, os.Geteuid(), sysctl)
	return e
}

// sysctl reads a setting of the kernel; empty if it has none of that name.
func sysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func whyForbidden(err error, uid int, sysctl func(string) string) (why, hint string) {
	set := func(assignment string) string { return "sudo sysctl -w " + assignment }
	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	switch {
	case uid != 0 && sysctl("user.max_user_namespaces") == "0":
		return "user namespaces are turned off", set("user.max_user_namespaces=15000")
	case uid != 0 && refused && sysctl("kernel.unprivileged_userns_clone") == "0":
		return "user namespaces are for root only", set("kernel.unprivileged_userns_clone=1")
	case uid != 0 && refused && sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor lets only programs that it knows use user namespaces", set("kernel.apparmor_restrict_unprivileged_userns=0")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return "there are as many namespaces as are allowed, or they are nested too deeply", "sysctl user"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return "the kernel does not have it: " + err.Error(), "Linux 5.12 or later, with user namespaces and seccomp"
	case refused:
		return "it is not permitted, as is so inside of most containers", "docker run --privileged"
	}
	return err.Error(), ""
}

// overlayRefused says why the layers could not be put together.
func overlayRefused(dir string, err error) *Error {
	e := fail(MountFailed, "overlay in "+dir, err)
	switch {
	case errors.Is(err, unix.ENODEV):
		e.Kind, e.Why, e.Hint = Forbidden, "the kernel has no overlay", "sudo modprobe overlay"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e = forbidden(e.What, err)
		if os.Getuid() != 0 && e.Hint == "" {
			e.Hint = "Linux 5.12 or later"
		}
	case errors.Is(err, unix.EINVAL):
		e.Why, e.Hint = "its file system cannot take what an overlay writes, or something is mounted in a layer", "sudo dmesg | grep overlayfs"
	}
	return e
}

// procRefused says why a container cannot see its processes.
func procRefused(err error) error {
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	return &Error{
		Kind: Forbidden, What: "mount of proc at /proc",
		Why:  "not permitted, because part of this machine's own /proc is hidden, as is so inside of most containers",
		Hint: "docker run --security-opt systempaths=unconfined",
	}
}
