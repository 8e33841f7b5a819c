package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// helperTime is how long a credential helper may take; some ask a person.
const helperTime = 30 * time.Second

func newTransport(stall time.Duration) http.RoundTripper {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: stall,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   8,
		DisableCompression:    true, // digests are of what is sent
		ForceAttemptHTTP2:     true,
	}
}

// careful refuses to speak without TLS to anything but this machine, whatever
// a registry redirects to.
type careful struct{ inner http.RoundTripper }

func (c careful) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme == "http" && !loopback(request.URL.Host) {
		return nil, fmt.Errorf("%s wants plain http, which only registries on this machine may", request.URL.Host)
	}
	return c.inner.RoundTrip(request)
}

// session is a conversation with one registry about one repository.
type session struct {
	ref    reference
	client *http.Client
	helper error // why there are no credentials
}

// dial finds out how the registry wants to be spoken to, and logs in.
func (s *Store) dial(ctx context.Context, r reference) (*session, error) {
	auth, helper := s.credentials(ctx, r)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	c := &session{ref: r, helper: helper}
	spoken, err := transport.NewWithContext(ctx, r.repository.Registry, auth, careful{s.options.Transport}, []string{r.repository.Scope(transport.PullScope)})
	if err != nil {
		return nil, c.told(err)
	}
	c.client = &http.Client{Transport: spoken, CheckRedirect: inward}
	return c, nil
}

// inward stops a registry elsewhere from making this machine ask itself or its
// closest neighbours for something.
func inward(request *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("more than 10 redirects")
	}
	ip := net.ParseIP(request.URL.Hostname())
	local := loopback(request.URL.Host) || ip != nil && (ip.IsLinkLocalUnicast() || ip.IsUnspecified())
	if local && !loopback(via[0].URL.Host) {
		return fmt.Errorf("%s redirects to %s, which is not followed", via[0].URL.Host, request.URL.Host)
	}
	return nil
}

// credentials asks the keychain, which may start a helper. Without an answer
// the registry is asked as nobody, as Docker does, and the reason is kept.
func (s *Store) credentials(ctx context.Context, r reference) (authn.Authenticator, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	type answer struct {
		auth authn.Authenticator
		err  error
	}
	came := make(chan answer, 1)
	go func() {
		auth, err := authn.Resolve(ctx, s.options.Keychain, r.repository)
		came <- answer{auth, err}
	}()
	select {
	case a := <-came:
		if a.err != nil {
			return authn.Anonymous, a.err
		}
		return a.auth, nil
	case <-ctx.Done():
		return authn.Anonymous, fmt.Errorf("no answer within %v", helperTime)
	}
}

// told is spoken, with what the keychain had to say about a refusal.
func (c *session) told(err error) error {
	err = spoken(err)
	var e *Error
	if c.helper != nil && errors.As(err, &e) && e.Kind == Unauthorized {
		return &Error{Kind: Unauthorized, Err: fmt.Errorf("%w (stored credentials cannot be read: %w)", e.Err, c.helper)}
	}
	return err
}

// get asks for a manifest or a blob of the repository, from offset on if that
// is not 0, up to size. The caller closes the body.
func (c *session) get(ctx context.Context, what, identifier string, accept []string, offset, size int64) (*http.Response, error) {
	url := fmt.Sprintf("%s://%s/v2/%s/%s/%s", c.ref.repository.Scheme(), c.ref.repository.RegistryStr(), c.ref.repository.RepositoryStr(), what, identifier)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fail(InvalidReference, "it makes no address: %w", err)
	}
	if len(accept) > 0 {
		request.Header.Set("Accept", strings.Join(accept, ", "))
	}
	if offset > 0 {
		// Some registries understand a range only with its end.
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, size-1))
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(response, http.StatusOK, http.StatusPartialContent); err != nil {
		response.Body.Close()
		return nil, later(err, response)
	}
	return response, nil
}

// read asks for something small.
func (c *session) read(ctx context.Context, what, identifier string, accept []string) (content []byte, mediaType string, err error) {
	response, err := c.get(ctx, what, identifier, accept, 0, 0)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	const most = 8 << 20
	content, err = io.ReadAll(io.LimitReader(response.Body, most+1))
	if err != nil {
		return nil, "", err
	}
	if len(content) > most {
		return nil, "", fail(Unsupported, "a manifest or configuration of more than %d MiB", most>>20)
	}
	return content, response.Header.Get("Content-Type"), nil
}

// delayed is an error with the time after which the registry wants to be asked
// again.
type delayed struct {
	error
	after time.Duration
}

func (d *delayed) Unwrap() error { return d.error }

func later(err error, response *http.Response) error {
	seconds, bad := strconv.Atoi(response.Header.Get("Retry-After"))
	if bad != nil || seconds <= 0 {
		return err
	}
	return &delayed{err, min(time.Duration(seconds)*time.Second, time.Minute)}
}

// tries counts what goes wrong in a row.
type tries struct {
	store  *Store
	failed int
}

// again waits before another try, or returns err when there is to be none.
// tell is called with the reason before the pause.
func (t *tries) again(ctx context.Context, err error, met bool, tell func(reason string)) error {
	t.failed++
	if ctx.Err() != nil || t.failed >= t.store.options.Tries || !passing(err, met) {
		return err
	}
	pause := t.store.options.Pause << (t.failed - 1)
	var wait *delayed
	if errors.As(err, &wait) {
		pause = wait.after
	}
	tell(reason(err))
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// repeat does something until it succeeds or there is no point in another try.
func (s *Store) repeat(ctx context.Context, met bool, tell func(reason string), do func() error) error {
	t := tries{store: s}
	for {
		err := do()
		if err == nil {
			return nil
		}
		if err := t.again(ctx, err, met, tell); err != nil {
			return err
		}
	}
}
