package project

import (
	"strings"
	"sync"

	"github.com/locald/locald/internal/env"
)

// given is what the last run of each service was given, by name: it outlives
// the description that the run was made from.
type given struct {
	mu   sync.Mutex
	runs map[string]*grant
}

// grant is what one run was given. It does not change.
type grant struct {
	vars    map[string]string // but for what was inherited
	hidden  []string          // "PORT hides the one in .env", for those who look
	secrets []string          // values, to keep out of what is shown
}

func (g *given) remember(name string, vars []env.Variable) {
	run := &grant{vars: map[string]string{}}
	for _, v := range vars {
		if v.Origin != inherited && v.Name != "LOCALD_RUN" {
			run.vars[v.Name] = v.Value
		}
		if v.Hides != "" {
			run.hidden = append(run.hidden, v.Name+" hides the one in "+v.Hides)
		}
		if v.Secret && len(v.Value) >= shortestSecret {
			run.secrets = append(run.secrets, v.Value)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.runs == nil {
		g.runs = map[string]*grant{}
	}
	g.runs[name] = run
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
