package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Kind says what sort of failure an Error is.
type Kind string

// What can go wrong.
const (
	InvalidReference Kind = "invalid_reference" // the text is no image's name
	NotFound         Kind = "not_found"         // the registry, or the store, does not have it
	Unauthorized     Kind = "unauthorized"      // the registry wants a login, or another one
	NoPlatform       Kind = "no_platform"       // the image is for other machines
	Unsupported      Kind = "unsupported"       // a format, or a file system, that is not served
	Corrupt          Kind = "corrupt"           // bytes that are not what they are said to be
	Unsafe           Kind = "unsafe"            // a layer that would write outside of its root
	DiskFull         Kind = "disk_full"         // no room in the store
	Network          Kind = "network"           // the registry cannot be reached, or broke off
	Storage          Kind = "storage"           // the store cannot be read or written
	InUse            Kind = "in_use"            // a lease holds the image
)

// Error is a failure with what it is about. Registry and Layer are empty where
// they do not matter. Hint is something to type, or a fact that helps.
type Error struct {
	Kind     Kind
	Image    string // the reference as it was given
	Registry string // host[:port]
	Layer    string // the first 12 digits of its digest
	Hint     string
	Err      error
}

// Error names the image, the registry and the layer, and what is wrong.
func (e *Error) Error() string {
	var s strings.Builder
	if e.Image != "" {
		fmt.Fprintf(&s, "image %s: ", e.Image)
	}
	if e.Registry != "" {
		fmt.Fprintf(&s, "registry %s: ", e.Registry)
	}
	if e.Layer != "" {
		fmt.Fprintf(&s, "layer %s: ", e.Layer)
	}
	s.WriteString(e.Err.Error())
	return s.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Passing reports whether the same may succeed later without anyone's doing.
func (e *Error) Passing() bool { return e.Kind == Network }

// IsKind reports whether err is an *Error of that kind.
func IsKind(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}

func fail(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// full reports whether there is no room to write, for whatever reason.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// stored makes an error of the store's own files an *Error.
func stored(err error) error {
	var e *Error
	switch {
	case err == nil || errors.As(err, &e) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case full(err):
		return &Error{Kind: DiskFull, Err: fmt.Errorf("no room to store it: %w", err)}
	}
	return &Error{Kind: Storage, Err: err}
}

// spoken makes an error of a conversation with a registry an *Error.
func spoken(err error) error {
	var e *Error
	var answer *transport.Error
	switch {
	case err == nil || errors.As(err, &e) || errors.Is(err, context.Canceled):
		return err
	case !errors.As(err, &answer):
		return &Error{Kind: Network, Err: worded{reason(err), err}}
	}
	said := worded{reason(err), err}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &Error{Kind: Unauthorized, Err: fmt.Errorf("it does not exist there, or needs a login: %w", said)}
	case http.StatusNotFound:
		return &Error{Kind: NotFound, Err: fmt.Errorf("it does not exist there: %w", said)}
	}
	return &Error{Kind: Network, Err: fmt.Errorf("the registry answered: %w", said)}
}

// worded is an error in fewer words than its own.
type worded struct {
	text string
	err  error
}

func (w worded) Unwrap() error { return w.err }

func (w worded) Error() string { return w.text }

// reason says in few words what went wrong between here and a registry. The
// addresses that errors repeat are in the hint.
func reason(err error) string {
	var answer *transport.Error
	var op *net.OpError
	switch {
	case errors.As(err, &answer):
		text := fmt.Sprintf("%d %s", answer.StatusCode, strings.ToLower(http.StatusText(answer.StatusCode)))
		for _, one := range answer.Errors {
			if said := strings.TrimSpace(one.Message); said != "" && !strings.EqualFold(said, http.StatusText(answer.StatusCode)) {
				text += ", " + said
			}
		}
		return text
	case errors.As(err, &op) && op.Err != nil:
		return op.Op + " " + addressOf(op) + ": " + op.Err.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection broke off"
	}
	return err.Error()
}

func addressOf(op *net.OpError) string {
	if op.Addr == nil {
		return op.Net
	}
	return op.Addr.String()
}

// passing reports whether trying the request again may help. met says whether
// the registry has answered before: a registry that has never been reached is
// more likely to be named wrongly than to be away for a second.
func passing(err error, met bool) bool {
	var e *Error
	var answer *transport.Error
	switch {
	case errors.As(err, &answer):
		return answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusRequestTimeout
	case errors.As(err, &e) && e.Kind != Network:
		return false
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return true
	}
	var untrusted *tls.CertificateVerificationError
	return met && !errors.As(err, &untrusted)
}

// about completes err with what it is about and a hint. Errors of ctx keep what
// they are, with the image in front.
func (s *Store) about(err error, r reference, layer string) error {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("image %s: %w", r.text, err)
		}
		e = &Error{Kind: Storage, Err: err}
	}
	told := *e
	told.Image = r.text
	if told.Layer == "" {
		told.Layer = layer
	}
	switch told.Kind {
	case DiskFull, Storage, InUse, InvalidReference:
	default:
		told.Registry = r.domain
	}
	if told.Hint == "" {
		told.Hint = s.hint(told.Kind, r)
	}
	return &told
}

func (s *Store) hint(kind Kind, r reference) string {
	switch kind {
	case InvalidReference:
		return "an image is named like postgres:15 or localhost:5000/team/app:1"
	case NotFound:
		if r.domain == dockerHub {
			return "https://hub.docker.com/r/" + r.path + "/tags lists the tags"
		}
		return "curl " + r.scheme() + "://" + r.domain + "/v2/" + r.path + "/tags/list"
	case Unauthorized:
		return "docker login " + r.domain + ", or podman login " + r.domain
	case NoPlatform:
		return "name an image or a tag that is built for this machine"
	case Unsupported:
		return "an engine may know it: docker pull " + r.text
	case Corrupt:
		return "try again; if it stays, the image has to be pushed again"
	case Unsafe:
		return "do not run this image"
	case DiskFull:
		return "df -h " + s.dir
	case Network:
		return "curl -I " + r.scheme() + "://" + r.host() + "/v2/"
	case Storage:
		return "ls -ld " + s.dir
	case InUse:
		return "stop what uses it"
	}
	return ""
}
