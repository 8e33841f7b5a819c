package remote

import (
	"context"
	"sync"
	"time"

	"github.com/locald/locald/runtime"
)

// Dial gives the connection that there is or makes one. It is called with each
// call of a Runtime and must be cheap then. Where there can be none again after
// the first has ended it is an error that says runtime.ErrUnavailable.
type Dial func(ctx context.Context) (*Peer, error)

// Fixed is the Dial of a connection that nothing follows.
func Fixed(p *Peer) Dial { return func(context.Context) (*Peer, error) { return p, nil } }

// Runtime is one that the other process offers, by its name there.
type Runtime struct {
	name string
	kind runtime.Kind
	dial Dial

	mu   sync.Mutex
	live map[runtime.Ref]handle // until they are removed
}

// handle is an instance in one of its shapes.
type handle interface {
	runtime.Instance
	core() *instance
}

// New is the runtime of that name and kind. Nobody is asked yet.
func New(name string, kind runtime.Kind, dial Dial) *Runtime {
	return &Runtime{name: name, kind: kind, dial: dial, live: map[runtime.Ref]handle{}}
}

// ask is one call to the process that has the runtime.
func ask[R any](ctx context.Context, r *Runtime, method string, a args) (R, error) {
	p, err := r.dial(ctx)
	if err != nil {
		var none R
		return none, err
	}
	a.Runtime = r.name
	return Call[R](ctx, p, method, a)
}

// tell is ask for what has no answer but that it is done.
func tell(ctx context.Context, r *Runtime, method string, a args) error {
	_, err := ask[struct{}](ctx, r, method, a)
	return err
}

// Kind is what New was told.
func (r *Runtime) Kind() runtime.Kind { return r.kind }

// Prepare is the contract's.
func (r *Runtime) Prepare(ctx context.Context, spec runtime.Spec, report func(runtime.Progress)) error {
	p, err := r.dial(ctx)
	if err != nil {
		return err
	}
	_, err = CallReports[struct{}](ctx, p, methodPrepare, args{Runtime: r.name, Spec: packSpec(spec)}, report)
	return err
}

// Start is the contract's.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	return r.hold(ctx, methodStart, args{Spec: packSpec(spec)})
}

// List is the contract's.
func (r *Runtime) List(ctx context.Context, owner runtime.Owner) ([]runtime.Ref, error) {
	return ask[[]runtime.Ref](ctx, r, methodList, args{Owner: owner})
}

// Attach is the contract's.
func (r *Runtime) Attach(ctx context.Context, ref runtime.Ref) (runtime.Instance, error) {
	return r.hold(ctx, methodAttach, args{Ref: ref})
}

// hold asks for an instance, and gives one that is known already as it is.
func (r *Runtime) hold(ctx context.Context, method string, a args) (runtime.Instance, error) {
	p, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	a.Runtime = r.name
	s, err := Call[started](ctx, p, method, a)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.live[s.Ref]; known != nil && known.core().peer == p {
		return known, nil
	}
	in := shape(&instance{runtime: r, peer: p, ref: s.Ref, info: s.Info}, s.Can)
	r.live[s.Ref] = in
	return in, nil
}

// instance is one in the other process.
type instance struct {
	runtime *Runtime
	peer    *Peer // with whom it has begun
	ref     runtime.Ref

	mu    sync.Mutex
	info  runtime.Info
	ended bool
	exit  runtime.Exit

	burying sync.Mutex
}

var _ runtime.Execer = (*instance)(nil)

func (in *instance) core() *instance { return in }

func (in *instance) Ref() runtime.Ref { return in.ref }

// infoTime is how long an Info may take that is not answered from memory.
const infoTime = 5 * time.Second

// Info is what the other process says, or the last that it said.
func (in *instance) Info() runtime.Info {
	in.mu.Lock()
	info, ended := in.info, in.ended
	in.mu.Unlock()
	if ended {
		return info
	}
	ctx, cancel := context.WithTimeout(context.Background(), infoTime)
	defer cancel()
	now, err := Call[runtime.Info](ctx, in.peer, methodInfo, in.args())
	if err != nil {
		return info
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.info = now
	return now
}

func (in *instance) args() args { return args{Runtime: in.runtime.name, Ref: in.ref} }

// Wait is the contract's. When the process that looked after the instance is gone
// what it has left is ended: nothing is adopted.
func (in *instance) Wait(ctx context.Context) (runtime.Exit, error) {
	if exit, ended := in.known(); ended {
		return exit, nil
	}
	exit, err := Call[runtime.Exit](ctx, in.peer, methodWait, in.args())
	if err == nil {
		return in.end(exit), nil
	}
	select {
	case <-in.peer.Gone():
		return in.bury(ctx)
	default:
		return exit, err
	}
}

func (in *instance) known() (runtime.Exit, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.exit, in.ended
}

func (in *instance) end(exit runtime.Exit) runtime.Exit {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.ended {
		in.ended, in.exit, in.info.PID = true, exit, 0
	}
	return in.exit
}

// buryGrace is how long an instance has to end of which nothing is known any more.
const buryGrace = 10 * time.Second

// bury ends what is left of an instance, through the process that has taken the
// place of the one that had it.
func (in *instance) bury(ctx context.Context) (runtime.Exit, error) {
	in.burying.Lock()
	defer in.burying.Unlock()
	if exit, ended := in.known(); ended {
		return exit, nil
	}
	a := args{Ref: in.ref, Grace: buryGrace}
	if err := tell(ctx, in.runtime, methodStop, a); err != nil {
		return runtime.Exit{}, err
	}
	if err := tell(ctx, in.runtime, methodRemove, a); err != nil {
		return runtime.Exit{}, err
	}
	return in.end(runtime.Exit{At: time.Now(), Reason: "the process that looked after it was killed"}), nil
}

// Stop is the contract's.
func (in *instance) Stop(ctx context.Context, grace time.Duration) error {
	return tell(ctx, in.runtime, methodStop, args{Ref: in.ref, Grace: grace})
}

// Remove is the contract's.
func (in *instance) Remove(ctx context.Context) error {
	err := tell(ctx, in.runtime, methodRemove, args{Ref: in.ref})
	if err == nil {
		in.runtime.mu.Lock()
		defer in.runtime.mu.Unlock()
		if known := in.runtime.live[in.ref]; known != nil && known.core() == in {
			delete(in.runtime.live, in.ref)
		}
	}
	return err
}

// Exec is the contract's, for instances that can.
func (in *instance) Exec(ctx context.Context, command []string) (runtime.Exit, []byte, error) {
	a := in.args()
	a.Names = command
	done, err := Call[executed](ctx, in.peer, methodExec, a)
	return done.Exit, done.Output, err
}
