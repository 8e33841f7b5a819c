package pid1

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// Spec is all that one container needs, but for its environment, which is that
// of the outer process. Nothing in it is secret.
type Spec struct {
	// Dir is the container's directory on the host, absolute and 0700. It is for
	// one run.
	Dir string `json:"dir"`
	// Layers are the image's directories, the top one first. With none the root
	// is empty.
	Layers []string `json:"layers,omitempty"`
	// UserXattr is the overlay's option of that name, which an ordinary user
	// needs.
	UserXattr bool `json:"user_xattr,omitempty"`

	Args    []string `json:"args"`              // Args[0] without a slash is looked up in the container's PATH
	Workdir string   `json:"workdir,omitempty"` // absolute in the container, made if it is missing; empty is /
	User    User     `json:"user"`
	// MapUID and MapGID are the one user and group that the container of an
	// ordinary user has, and which are the user's own outside. Root ignores them.
	MapUID uint32 `json:"map_uid,omitempty"`
	MapGID uint32 `json:"map_gid,omitempty"`
	// Range are the users that it has instead, where it is to have more; nil is
	// that one.
	Range *Range `json:"range,omitempty"`

	Hostname string `json:"hostname,omitempty"` // empty is "localhost"
	// Address is what the host name stands for in the container; empty is
	// 127.0.0.1.
	Address string       `json:"address,omitempty"`
	Hosts   []HostsEntry `json:"hosts,omitempty"`
	// Resolv is the content of /etc/resolv.conf; empty is that of the host.
	Resolv string `json:"resolv,omitempty"`

	Mounts   []Mount  `json:"mounts,omitempty"`
	Tmpfs    []string `json:"tmpfs,omitempty"` // "TARGET" or "TARGET:OPTIONS", as Docker's --tmpfs
	ReadOnly bool     `json:"read_only,omitempty"`

	// Engine says that an engine makes the container, and starts the inner process
	// in it as Guest says. Of the above, Layers, Mounts, Tmpfs, ReadOnly and the map
	// of users are then the engine's to see to.
	Engine bool `json:"engine,omitempty"`
	// Hide names what is in the outer process's environment for its own sake.
	Hide []string `json:"hide,omitempty"`

	// HostNetwork leaves the container in the host's network.
	HostNetwork bool `json:"host_network,omitempty"`
	// Network is for the Network that Main has; nobody here reads it.
	Network json.RawMessage `json:"network,omitempty"`
}

// User is whose the processes are. Home becomes HOME where the environment has
// none.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"` // besides GID; an ordinary user's container has none
	Home   string   `json:"home,omitempty"`
}

// HostsEntry is a line of /etc/hosts.
type HostsEntry struct {
	Address string   `json:"address"`
	Names   []string `json:"names"`
}

// Mount shows a directory or a file of the host in the container. What is
// mounted below Source comes with it.
type Mount struct {
	Source   string `json:"source"` // absolute
	Target   string `json:"target"` // made if it is missing; links are followed inside of the container
	ReadOnly bool   `json:"read_only,omitempty"`
	// Fill is for volumes: Source is made if it is missing, and as long as it is
	// empty it gets what the image has at Target. Names that begin with Source's
	// are used beside it.
	Fill bool `json:"fill,omitempty"`
}

// ExitFailed is the status of a container that could not be made; one whose
// program cannot be executed, or is not there, ends with those of a shell.
const (
	ExitFailed        = 125
	ExitNotExecutable = 126
	ExitNotFound      = 127
)

// Kind says what sort of failure an Error is.
type Kind string

// What can go wrong.
const (
	Invalid       Kind = "invalid"        // a Spec or Command that nothing can be made of
	Forbidden     Kind = "forbidden"      // this machine lets nobody like us make containers
	MountFailed   Kind = "mount_failed"   // the root, or something in it, could not be mounted
	NetworkFailed Kind = "network_failed" // the container's network could not be made, or ended
	PortTaken     Kind = "port_taken"     // a port of the host that the network wants is somebody else's
	NotFound      Kind = "not_found"      // the program is not in the container
	NotExecutable Kind = "not_executable" // it is, and cannot be executed
	WorkdirFailed Kind = "workdir_failed" // its directory cannot be had
	Gone          Kind = "gone"           // there is no such container, or no more
	Failed        Kind = "failed"         // anything else
)

// Error is why a container or a command in it was not started. What says what
// was being done, Why the cause; Hint is something to type, a fact, or empty.
type Error struct {
	Kind Kind   `json:"kind"`
	What string `json:"what"`
	Why  string `json:"why"`
	Hint string `json:"hint,omitempty"`

	cause error // nil when it came from the other process
}

// Error is What and Why.
func (e *Error) Error() string { return e.What + ": " + e.Why }

// Unwrap returns the cause, if it is known.
func (e *Error) Unwrap() error { return e.cause }

// ExitStatus is that of the outer process for this error.
func (e *Error) ExitStatus() int {
	switch e.Kind {
	case NotFound:
		return ExitNotFound
	case NotExecutable:
		return ExitNotExecutable
	}
	return ExitFailed
}

// IsKind reports whether err is an *Error of that kind.
func IsKind(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}

func fail(kind Kind, what string, cause error) *Error {
	return &Error{Kind: kind, What: what, Why: cause.Error(), cause: cause}
}

// asError makes an *Error of any error.
func asError(what string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return fail(Failed, what, err)
}

func invalid(format string, args ...any) *Error {
	return &Error{Kind: Invalid, What: "spec", Why: fmt.Sprintf(format, args...)}
}

// check finds what nothing can be made of. Whether what it names is there shows
// later.
func (s *Spec) check() *Error {
	for _, dir := range append([]string{s.Dir}, s.Layers...) {
		if !filepath.IsAbs(dir) {
			return invalid("directory %q: not an absolute path", dir)
		}
	}
	if len(s.Args) == 0 || s.Args[0] == "" {
		return invalid("the command is empty")
	}
	if s.Workdir != "" && !path.IsAbs(s.Workdir) {
		return invalid("working directory %q: not an absolute path", s.Workdir)
	}
	for _, m := range s.Mounts {
		if !filepath.IsAbs(m.Source) || !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
			return invalid("mount of %q at %q: not absolute paths, or the root", m.Source, m.Target)
		}
	}
	for _, t := range s.Tmpfs {
		if target, _, _ := strings.Cut(t, ":"); !path.IsAbs(target) || path.Clean(target) == "/" {
			return invalid("tmpfs at %q: not an absolute path, or the root", target)
		}
	}
	return s.checkLines()
}

// checkLines keeps what is written into files from being more lines there.
func (s *Spec) checkLines() *Error {
	words := []string{s.Hostname, s.Address}
	for _, h := range s.Hosts {
		words = append(append(words, h.Address), h.Names...)
	}
	for _, w := range words {
		if strings.ContainsAny(w, " \t\r\n#") {
			return invalid("%q: not a host's name or address", w)
		}
	}
	return nil
}

func (s *Spec) hostname() string {
	if s.Hostname == "" {
		return "localhost"
	}
	return s.Hostname
}

// hosts is /etc/hosts.
func (s *Spec) hosts() string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if s.hostname() != "localhost" {
		address := s.Address
		if address == "" {
			address = "127.0.0.1"
		}
		fmt.Fprintf(&b, "%s\t%s\n", address, s.Hostname)
	}
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.Address, strings.Join(h.Names, " "))
	}
	return b.String()
}

// Argument is the Spec as the outer process takes it. A text that is not UTF-8
// cannot be said in it.
func (s *Spec) Argument() (string, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	if strings.Contains(string(text), `\ufffd`) { // a true one is not escaped
		return "", invalid("a name in it is not UTF-8: %s", text)
	}
	return string(text), nil
}
