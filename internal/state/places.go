package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/locald/locald/runtime"
)

// The environment variables that say which daemon is meant.
const (
	SandboxVar = "LOCALD_SANDBOX_ACTIVE"
	SocketVar  = "LOCALD_SOCKET"
)

// Places is where one daemon and its clients find everything.
type Places struct {
	Sandbox string // its name; empty for the daemon of the user
	Dir     string // the state directory
	Socket  string // where a daemon would listen, or one that runs has said that it does
	Log     string // the daemon's log
	PIDFile string
	Fixed   bool // Socket was chosen by a sandbox or LOCALD_SOCKET and has no second choice
}

// isSandboxName reports whether a sandbox can be called so. A regular expression
// would be compiled for every command.
func isSandboxName(name string) bool {
	return name != "" && len(name) <= 31 && name[0] != '-' &&
		strings.Trim(name, "-0123456789abcdefghijklmnopqrstuvwxyz") == ""
}

// Locate finds the places from the environment and the --sandbox flag. It
// reads, and creates nothing.
func Locate(getenv func(string) string, sandbox string) (Places, error) {
	home, err := dataHome(getenv)
	if err != nil {
		return Places{}, err
	}
	root := filepath.Join(home, "locald")
	if err := Refused(getenv); err != nil {
		return Places{}, err
	}
	socket := getenv(SocketVar)
	switch {
	case sandbox != "" && !isSandboxName(sandbox):
		return Places{}, &runtime.Fault{
			Code: "invalid_request", Hint: "--sandbox dev",
			Err: fmt.Errorf("sandbox %q: a name is lower-case letters, digits and dashes, at most 31", sandbox),
		}
	case sandbox != "":
		return sandboxed(sandbox, filepath.Join(root, "sandboxes", sandbox)), nil
	case socket != "" && !filepath.IsAbs(socket):
		return Places{}, &runtime.Fault{Code: "invalid_request", Err: fmt.Errorf("%s: %q is not an absolute path", SocketVar, socket)}
	case socket != "":
		return ofSocket(root, socket), nil
	}
	p := Places{Dir: root, Log: usual(root, "log"), Socket: Short(usual(root, "sock"))}
	p.PIDFile = filepath.Join(root, "locald.pid")
	p.recorded()
	return p, nil
}

// Refused is why no command may do anything in this environment; nil when it
// may.
func Refused(getenv func(string) string) error {
	if getenv(SocketVar) == "" || getenv(SandboxVar) == "1" {
		return nil
	}
	return &runtime.Fault{
		Code: "invalid_request", Hint: "unset " + SocketVar + ", or use --sandbox NAME",
		Err: fmt.Errorf("%s is set but %s is not 1: refused, so that no command reaches another daemon than you think", SocketVar, SandboxVar),
	}
}

func dataHome(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) { // the specification has a relative one ignored
		return dir, nil
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share"), nil
	}
	return "", &runtime.Fault{Code: "permission_denied", Hint: "export HOME=…", Err: errors.New("neither HOME nor XDG_DATA_HOME says where state may be kept")}
}

func sandboxed(name, dir string) Places {
	return Places{
		Sandbox: name, Dir: dir, Fixed: true,
		Socket: Short(filepath.Join(dir, "locald.sock")), Log: filepath.Join(dir, "locald.log"), PIDFile: filepath.Join(dir, "locald.pid"),
	}
}

// ofSocket finds the places that belong to a socket named by LOCALD_SOCKET: a
// sandbox's own when it is one of ours, else a sandbox of its own.
func ofSocket(root, socket string) Places {
	dir := filepath.Dir(socket)
	if filepath.Dir(dir) == filepath.Join(root, "sandboxes") && filepath.Base(socket) == "locald.sock" {
		return sandboxed(filepath.Base(dir), dir)
	}
	name := "socket-" + digest(socket)
	p := sandboxed(name, filepath.Join(root, "sandboxes", name))
	p.Socket = socket
	return p
}

// Env is what has to be set for a daemon, or for a command, to find the same
// places without the flag.
func (p Places) Env() []string {
	if !p.Fixed {
		return nil
	}
	return []string{SandboxVar + "=1", SocketVar + "=" + p.Socket}
}

// recorded takes the socket and the log from what the daemon has written down.
// What somebody else has by now is not the daemon's any more.
func (p *Places) recorded() {
	var d Daemon
	if uid, err := ownerOf(p.Dir); err != nil || uid != os.Getuid() {
		return // whoever wrote it would choose whom we talk to
	}
	if err := Read(filepath.Join(p.Dir, daemonFile), &d); err != nil {
		return
	}
	if d.Socket != "" && !foreign(d.Socket) {
		p.Socket = d.Socket
	}
	if d.Log != "" && !foreign(d.Log) {
		p.Log = d.Log
	}
}

// foreign reports whether a path is somebody else's. One where nothing is, is
// nobody's.
func foreign(path string) bool {
	uid, err := ownerOf(path)
	return err == nil && uid != os.Getuid()
}

// maxSocket is the longest path that fits a socket address on every system.
const maxSocket = 103

// Short is a socket's path, or one in /tmp that stands for it when it is too
// long for a socket address.
func Short(path string) string {
	if len(path) <= maxSocket {
		return path
	}
	return fmt.Sprintf("/tmp/locald-%d-%s.sock", os.Getuid(), digest(path))
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// usual is /tmp/locald.<ext>, or /tmp/locald-<uid>.<ext> when somebody else
// has that path. Who has both cannot have what is below the state directory.
func usual(root, ext string) string {
	for _, path := range []string{"/tmp/locald." + ext, "/tmp/locald-" + strconv.Itoa(os.Getuid()) + "." + ext} {
		if !foreign(path) {
			return path
		}
	}
	return filepath.Join(root, "locald."+ext)
}

// Make creates the state directory, or makes sure that the one there is ours
// alone.
func (p Places) Make() error {
	if err := os.MkdirAll(filepath.Dir(p.Dir), 0o700); err != nil {
		return denied(p.Dir, err)
	}
	if err := os.Mkdir(p.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return denied(p.Dir, err)
	}
	info, err := os.Lstat(p.Dir)
	if err != nil {
		return denied(p.Dir, err)
	}
	uid, err := ownerOf(p.Dir)
	switch {
	case err != nil:
		return denied(p.Dir, err)
	case info.Mode()&fs.ModeSymlink != 0:
		return refused(p.Dir, "is a symbolic link", "rm "+p.Dir)
	case !info.IsDir():
		return refused(p.Dir, "is not a directory", "mv "+p.Dir+" "+p.Dir+".bak")
	case uid != os.Getuid():
		return refused(p.Dir, fmt.Sprintf("belongs to uid %d", uid), fmt.Sprintf("sudo chown -R %d %s", os.Getuid(), p.Dir))
	case info.Mode().Perm()&0o077 != 0:
		return refused(p.Dir, fmt.Sprintf("is open to others (%04o)", info.Mode().Perm()), "chmod 0700 "+p.Dir)
	}
	return nil
}

func denied(path string, err error) error {
	f := &runtime.Fault{Code: "permission_denied", Err: fmt.Errorf("state directory %s: %w", path, err)}
	if full(err) {
		f.Code = "disk_full"
	}
	return f
}

func refused(path, what, hint string) error {
	return &runtime.Fault{Code: "permission_denied", Hint: hint, Err: fmt.Errorf("state directory %s %s", path, what)}
}
