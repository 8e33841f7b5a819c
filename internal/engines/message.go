package engines

import (
	"context"

	"github.com/locald/locald/runtime"
	"github.com/locald/locald/runtime/remote"
)

// What the process is asked beside the contract, and what it asks.
const (
	MethodOpen       = "open"       // Opening, before anything else
	MethodGet        = "get"        // a URL of https; Got
	MethodDiscover   = "discover"   // what speaks Docker's API: Found of each place
	MethodNamed      = "named"      // whether the user has named an engine
	MethodContainerd = "containerd" // Found of containerd
	MethodSurvey     = "survey"     // Surveyed

	MethodStreams = "streams" // the far ends of a Run's output: two files
	MethodFlush   = "flush"   // of a Run
	MethodNote    = "note"    // for a Run
	MethodAway    = "away"    // Away
	MethodKeeps   = "keeps"   // whether a runtime.RunID is kept
)

// ProcessRuntime is the runtime that the daemon offers.
const ProcessRuntime = "process"

// Opening says for whom the process works.
type Opening struct {
	Dir   string        `json:"dir"` // of the state
	Owner runtime.Owner `json:"owner"`
	Maker []string      `json:"maker"` // argv of what makes builtin containers
}

// Found is a runtime.FoundEngine on its way.
type Found struct {
	runtime.FoundEngine
	Err *remote.Failure `json:"err,omitempty"`
}

// Pack makes one fit to travel.
func Pack(f runtime.FoundEngine) Found {
	packed := Found{f, remote.Pack(f.Err)}
	packed.FoundEngine.Err = nil
	return packed
}

func (f Found) unpack() runtime.FoundEngine {
	f.FoundEngine.Err = f.Err.Unpack()
	return f.FoundEngine
}

// Surveyed is everything that containers have left or use.
type Surveyed struct {
	Made  []runtime.Made  `json:"made"`
	Asked []Found         `json:"asked"`
	Files []runtime.Files `json:"files"`
}

// Run is one run's log, and what is to be noted there.
type Run struct {
	Log    []byte `json:"log"`
	Number int    `json:"number"`
	Text   string `json:"text,omitempty"`
}

// Away is that an engine has gone away, or with no error that it is back.
type Away struct {
	Engine string          `json:"engine"` // by the name that it was asked for
	Err    *remote.Failure `json:"err,omitempty"`
}

// Survey is everything that containers have left or use, in every engine that can
// be found and in the state directory.
type Survey struct {
	Made  []runtime.Made
	Asked []runtime.FoundEngine // where it was looked, and why one could not be asked
	Files []runtime.Files
}

// Discover looks for engines with Docker's API. It takes five seconds at most.
func (p *Process) Discover(ctx context.Context) ([]runtime.FoundEngine, error) {
	peer, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	found, err := remote.Call[[]Found](ctx, peer, MethodDiscover, struct{}{})
	return unpackAll(found), err
}

func unpackAll(found []Found) []runtime.FoundEngine {
	var all []runtime.FoundEngine
	for _, f := range found {
		all = append(all, f.unpack())
	}
	return all
}

// Named reports whether the user has named an engine, by DOCKER_HOST or a docker
// context.
func (p *Process) Named(ctx context.Context) bool {
	peer, err := p.dial(ctx)
	if err != nil {
		return false
	}
	named, err := remote.Call[bool](ctx, peer, MethodNamed, struct{}{})
	return err == nil && named
}

// Containerd says whether containerd can be used. It takes five seconds at most.
func (p *Process) Containerd(ctx context.Context) runtime.FoundEngine {
	peer, err := p.dial(ctx)
	if err != nil {
		return runtime.FoundEngine{Engine: runtime.EngineContainerd, Err: err}
	}
	found, err := remote.Call[Found](ctx, peer, MethodContainerd, struct{}{})
	if err != nil {
		return runtime.FoundEngine{Engine: runtime.EngineContainerd, Err: err}
	}
	return found.unpack()
}

// Survey looks for what containers have left or use. It changes nothing.
func (p *Process) Survey(ctx context.Context) (Survey, error) {
	peer, err := p.dial(ctx)
	if err != nil {
		return Survey{}, err
	}
	s, err := remote.Call[Surveyed](ctx, peer, MethodSurvey, struct{}{})
	return Survey{Made: s.Made, Asked: unpackAll(s.Asked), Files: s.Files}, err
}

// Got is the status of a GET ("200 OK"), or why there is none.
type Got struct {
	Status string `json:"status,omitempty"`
	Why    string `json:"why,omitempty"`
}
