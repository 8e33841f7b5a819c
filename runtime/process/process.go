package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/runtime"
)

// Runtime starts processes through one keeper, which it starts when the first
// of them is wanted, and again when it was killed.
type Runtime struct {
	options   keeper.Options
	listening listening

	mu     sync.Mutex
	tenure *tenure
	kept   map[string]keeper.Retention // see Keep
	closed bool
	live   map[runtime.Ref]*instance // started here and not removed
}

// tenure is the time of one keeper.
type tenure struct {
	keeper *keeper.Keeper
	dir    string

	// swept is closed when the keeper has ended and what it left was ended too,
	// or could not be, which left then tells.
	swept chan struct{}
	at    time.Time
	left  bool

	mu    sync.Mutex
	grace time.Duration // the longest of its runs
}

// New returns the runtime of one owner. Nothing is started yet.
func New(options keeper.Options) *Runtime {
	return &Runtime{options: options, live: map[runtime.Ref]*instance{}}
}

// Keeper returns the keeper, and starts one when there is none. After the end
// of one it first waits until what that left is gone. ErrUnavailable is wrapped
// when it cannot be started or Close was called.
func (r *Runtime) Keeper(ctx context.Context) (*keeper.Keeper, error) {
	t, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	return t.keeper, nil
}

// Close stops what runs, each run within its own grace, and ends the keeper.
func (r *Runtime) Close() error {
	r.mu.Lock()
	r.closed = true
	t := r.tenure
	r.mu.Unlock()
	if t == nil {
		return nil
	}
	err := t.keeper.Close()
	<-t.swept
	return err
}

func (r *Runtime) current(ctx context.Context) (*tenure, error) {
	for {
		r.mu.Lock()
		t := r.tenure
		switch {
		case r.closed:
			r.mu.Unlock()
			return nil, fmt.Errorf("keeper is closed: %w", runtime.ErrUnavailable)
		case t == nil || over(t.swept):
			t, err := r.begin(ctx)
			r.mu.Unlock()
			return t, err
		case !over(t.keeper.Lost()):
			r.mu.Unlock()
			return t, nil
		}
		r.mu.Unlock()
		select {
		case <-t.swept:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func over(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func (r *Runtime) begin(ctx context.Context) (*tenure, error) {
	k, err := keeper.Start(ctx, r.options)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runtime.ErrUnavailable, err)
	}
	for dir, much := range r.kept {
		_ = k.Keep(dir, much) // one that is gone is followed by another
	}
	r.tenure = &tenure{keeper: k, dir: r.options.Dir, swept: make(chan struct{})}
	go r.tenure.sweep()
	return r.tenure, nil
}

// sweep waits for the end of the keeper and ends what is left of its runs.
func (t *tenure) sweep() {
	defer close(t.swept)
	<-t.keeper.Lost()
	t.at = time.Now()
	t.mu.Lock()
	grace := t.grace
	t.mu.Unlock()
	t.left = t.clear(context.Background(), grace) != nil
}

// clear ends what the keeper has left: below this process, and by its marks
// what somebody else has adopted.
func (t *tenure) clear(ctx context.Context, grace time.Duration) error {
	if t.keeper.Clean() {
		return nil
	}
	below := t.keeper.Clear(ctx, grace)
	found, err := keeper.Find(ctx, t.dir, t.keeper.Owner())
	if err != nil {
		return errors.Join(below, err)
	}
	marks := make([]keeper.Mark, len(found))
	for i, f := range found {
		marks[i] = f.Mark
	}
	if err := keeper.End(ctx, t.dir, marks, grace); err != nil {
		return err // it names what below does, if that is still there
	}
	return below
}

// Kind is Process.
func (r *Runtime) Kind() runtime.Kind { return runtime.Process }

// Prepare finds the program that the spec names.
func (r *Runtime) Prepare(ctx context.Context, spec runtime.Spec, _ func(runtime.Progress)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(spec.Command) == 0 {
		return fault(&keeper.Error{Code: "config_invalid", Message: "the command is empty"})
	}
	_, err := keeper.Look(spec.Command[0], spec.Dir, spec.Env)
	return fault(err)
}

// Start starts the process.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	if spec.Owner != runtime.Owner(r.options.Owner) {
		return nil, fmt.Errorf("owner %s: this keeper is of %s: %w", spec.Owner, r.options.Owner, runtime.ErrInvalid)
	}
	began := time.Now()
	t, child, err := r.fork(ctx, spec)
	if errors.Is(err, keeper.ErrLost) {
		// The keeper was killed a moment ago. The next one is there only after
		// what this one may have started is gone.
		t, child, err = r.fork(ctx, spec)
	}
	if err != nil {
		return nil, fault(err)
	}
	ref, err := refOf(child.Mark())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", runtime.ErrUnavailable, err), child.Stop(ctx, 0))
	}
	in := &instance{ref: ref, spec: spec, began: began, runtime: r, tenure: t, child: child, execs: map[*keeper.Child]bool{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[ref] = in
	return in, nil
}

func (r *Runtime) fork(ctx context.Context, spec runtime.Spec) (*tenure, *keeper.Child, error) {
	t, err := r.current(ctx)
	if err != nil {
		return nil, nil, err
	}
	t.allow(spec.Grace)
	child, err := t.keeper.Run(ctx, keeper.Run{
		ID: string(spec.ID()), Number: spec.Run, Argv: spec.Command, Dir: spec.Dir, Env: spec.Env, Log: spec.Log,
		StopSignal: spec.StopSignal, Grace: spec.Grace, Unprivileged: spec.Unprivileged,
		Limits: (*keeper.Limits)(spec.Limits),
	})
	if errors.Is(err, keeper.ErrLost) {
		// The connection may end before the process does.
		select {
		case <-t.keeper.Lost():
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	return t, child, err
}

func (t *tenure) allow(grace time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.grace = max(t.grace, grace)
}

// List returns one ref for each run of which marked processes are there. Run is
// empty when only the number of a run was found, its processes having
// overwritten their environment.
func (r *Runtime) List(ctx context.Context, owner runtime.Owner) ([]runtime.Ref, error) {
	found, err := keeper.Find(ctx, r.options.Dir, string(owner))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runtime.ErrUnavailable, err)
	}
	refs := make([]runtime.Ref, len(found))
	for i, f := range found {
		if refs[i], err = refOf(f.Mark); err != nil {
			return nil, fmt.Errorf("%w: %w", runtime.ErrUnavailable, err)
		}
	}
	return refs, nil
}

// Attach returns the instance that ref names: the one that was started here, or
// for one of an earlier daemon what is left of it.
func (r *Runtime) Attach(ctx context.Context, ref runtime.Ref) (runtime.Instance, error) {
	r.mu.Lock()
	in := r.live[ref]
	r.mu.Unlock()
	if in != nil {
		if over(in.child.Done()) || over(in.tenure.swept) && !in.tenure.left {
			return nil, runtime.ErrGone
		}
		return in, nil
	}
	mark, err := r.markOf(ref)
	if err != nil {
		return nil, err
	}
	found, err := keeper.Find(ctx, r.options.Dir, r.options.Owner)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runtime.ErrUnavailable, err)
	}
	if !slices.ContainsFunc(found, func(f keeper.Found) bool { return f.Mark.Same(mark) }) {
		return nil, runtime.ErrGone
	}
	return &leftover{ref: ref, mark: mark, dir: r.options.Dir}, nil
}

// refOf names a run for ever: numbers are drawn anew in each boot.
func refOf(mark keeper.Mark) (runtime.Ref, error) {
	boot, err := keeper.Boot()
	if err != nil {
		return runtime.Ref{}, err
	}
	return runtime.Ref{Kind: runtime.Process, Run: runtime.RunID(mark.Run), ID: boot + "/" + strconv.FormatUint(mark.Number, 16)}, nil
}

// markOf is the mark that a ref of this boot stands for.
func (r *Runtime) markOf(ref runtime.Ref) (keeper.Mark, error) {
	now, err := keeper.Boot()
	if err != nil {
		return keeper.Mark{}, fmt.Errorf("%w: %w", runtime.ErrUnavailable, err)
	}
	boot, hex, _ := strings.Cut(ref.ID, "/")
	number, err := strconv.ParseUint(hex, 16, 64)
	if ref.Kind != runtime.Process || boot != now || err != nil || number == 0 && ref.Run == "" {
		return keeper.Mark{}, runtime.ErrGone
	}
	return keeper.Mark{Owner: r.options.Owner, Run: string(ref.Run), Number: number}, nil
}

// fault turns the keeper's errors into the contract's.
func fault(err error) error {
	var cannot *keeper.Error
	switch {
	case errors.As(err, &cannot):
		kind := runtime.ErrInvalid
		if cannot.Code == "internal" {
			kind = runtime.ErrUnavailable
		}
		return &runtime.Fault{Code: cannot.Code, Hint: cannot.Hint, Err: cannot, Kind: kind}
	case errors.Is(err, keeper.ErrLost):
		return fmt.Errorf("%w: %w", runtime.ErrUnavailable, err)
	}
	return err
}

// survivors turns the keeper's into the contract's.
func survivors(err error) error {
	var left *keeper.SurvivorsError
	if !errors.As(err, &left) {
		return err
	}
	s := &runtime.Survivors{}
	for _, l := range left.Left {
		s.Left = append(s.Left, runtime.Survivor{PID: l.PID, Reason: l.Reason})
	}
	return s
}
