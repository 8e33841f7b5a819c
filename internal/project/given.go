package project

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/env"
	"github.com/locald/locald/runtime"
)

// given is what the last run of each service was given, by name: it outlives
// the description that the run was made from.
type given struct {
	mu      sync.Mutex
	runs    map[string]*grant
	from    []string // what the client's secrets were found in
	clients []string // they
}

// grant is what one run was given. It does not change.
type grant struct {
	vars    map[string]string // but for what was inherited
	hidden  []string          // "PORT hides the one in .env", for those who look
	secrets []string          // values, to keep out of what is shown
}

// remember keeps what a run is given. What is inherited may be referred to where
// it is not passed on, so its secrets count as well.
func (g *given) remember(name string, vars []env.Variable, inherits []string) {
	run := &grant{vars: map[string]string{}, secrets: slices.Clone(g.secretsOf(inherits))}
	for _, v := range vars {
		if v.Hides != "" {
			run.hidden = append(run.hidden, v.Name+" hides the one in "+v.Hides)
		}
		if v.Origin != inherited && v.Name != "LOCALD_RUN" {
			run.vars[v.Name] = v.Value
		}
		if v.Secret {
			run.secrets = keep(run.secrets, v.Value)
		}
	}
	// The longest first, so that one within another does not leave the rest of it.
	slices.SortFunc(run.secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	run.secrets = slices.Compact(run.secrets)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.runs == nil {
		g.runs = map[string]*grant{}
	}
	g.runs[name] = run
}

// secretsOf is the secrets in the client's environment, which is the same for
// all services of an up. They are not to be changed.
func (g *given) secretsOf(inherits []string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.from) == len(inherits) && (len(inherits) == 0 || &g.from[0] == &inherits[0]) {
		return g.clients
	}
	g.from, g.clients = inherits, nil
	for _, entry := range inherits {
		if name, value, ok := strings.Cut(entry, "="); ok && config.Secret(name, value) {
			g.clients = keep(g.clients, value)
		}
	}
	return g.clients
}

// keep adds a secret, and the password of a URL also by itself.
func keep(secrets []string, value string) []string {
	for _, secret := range append(config.URLPasswords(value), value) {
		if len(secret) >= shortestSecret {
			secrets = append(secrets, secret)
		}
	}
	return secrets
}

// last is what the last run was given; nil when there was none.
func (g *given) last(name string) *grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.runs[name]
}

// shortestSecret keeps values like "1" from tearing holes into what is shown.
const shortestSecret = 6

// mask is text without the secrets that a service was given.
func (g *given) mask(name, text string) string {
	run := g.last(name)
	if run == nil || text == "" {
		return text
	}
	for _, secret := range run.secrets {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return text
}

// cover is an error without the secrets that a service was given: it is shown,
// kept in the history and written to a log. What callers ask of it stays.
func (g *given) cover(name string, err error) error {
	if err == nil {
		return nil
	}
	fault, known := errors.AsType[*runtime.Fault](err)
	text := g.mask(name, err.Error())
	if text == err.Error() && (!known || g.mask(name, fault.Hint) == fault.Hint) {
		return err
	}
	told := error(&covered{text, err})
	if known {
		told = &runtime.Fault{Code: fault.Code, Hint: g.mask(name, fault.Hint), Err: told, Kind: fault.Kind}
	}
	return told
}

// covered is an error in other words.
type covered struct {
	text  string
	cause error
}

func (c *covered) Error() string { return c.text }
func (c *covered) Unwrap() error { return c.cause }

// covering is a runtime whose failures to start have no secrets in them.
type covering struct {
	runtime.Runtime
	cover func(error) error
}

func (c covering) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	in, err := c.Runtime.Start(ctx, spec)
	return in, c.cover(err)
}
