package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/internal/project"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// settleLimit is how long after a restore a status waits for what it starts.
const settleLimit = 30 * time.Second

// look is the project of a directory, for those who only look. One of which
// nothing is on record is what its file says, and a file that cannot be read is
// an error.
func (d *Daemon) look(of ipc.Project) (*project.Project, error) {
	p, err := d.open(of)
	if err != nil {
		return nil, err
	}
	if p.Title().UsedAt.IsZero() {
		if _, err := p.Config(); err != nil {
			return nil, fault(err)
		}
	}
	return p, nil
}

// awaitWishes returns once what is wanted is known again after a restart.
func (d *Daemon) awaitWishes(ctx context.Context) {
	select {
	case <-d.applied:
	case <-ctx.Done():
	}
}

func (d *Daemon) status(ctx context.Context, a ipc.StatusArgs) (any, error) {
	p, err := d.look(a.Project)
	if err != nil {
		return nil, fault(err)
	}
	if lost := d.lost(p); lost != nil {
		return nil, fault(lost)
	}
	names, err := named(p, a.Services)
	if err != nil {
		return nil, fault(err)
	}
	if a.Settle {
		d.settle(ctx, p)
	}
	status := d.statusOf(p, names, a.Reveal)
	if a.Brief {
		return status.Brief(), nil
	}
	return status, nil
}

// named is p.Known for statusOf.
func named(p *project.Project, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	return p.Known(names)
}

// lost is what to tell of a project whose record was put aside, until an up
// writes another: it must not look like one of which nothing is wanted.
func (d *Daemon) lost(p *project.Project) error {
	if !p.Title().UsedAt.IsZero() {
		return nil
	}
	if damaged := d.store.Lost(p.ID()); damaged != nil {
		return &runtime.Fault{Code: ipc.CodeStateDamaged, Hint: "locald up", Err: damaged}
	}
	return nil
}

// settle waits until a restore under way has brought a project's services to
// rest, or has had its time.
func (d *Daemon) settle(ctx context.Context, p *project.Project) {
	d.awaitWishes(ctx)
	if ctx.Err() != nil {
		return
	}
	rested, revived := d.rested[p.ID()]
	if !revived {
		return
	}
	select {
	case <-rested:
	case <-ctx.Done():
	}
}

// rest waits until the services that are wanted of a project that was just
// restored are up, or will not be.
func (d *Daemon) rest(ctx context.Context, p *project.Project) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit) // preparing included
	defer cancel()
	sub, end := p.Watch()
	defer end()
	var names []string
	for _, s := range sub.Snapshot {
		if s.Want.Up {
			names = append(names, s.Service)
		}
	}
	f := follow(p, sub, func(ipc.Event) error { return nil })
	_, _ = f.until(ctx, sub, goal{names: names, met: isUp}, settleLimit) // the status tells how it went
}

// statusOf is a snapshot of a project; names nil is every service.
func (d *Daemon) statusOf(p *project.Project, names []string, reveal bool) *ipc.Status {
	view := p.View()
	if names == nil {
		names = p.All(view)
	}
	status := &ipc.Status{
		Version: 1, Project: d.name(p),
		Daemon:   ipc.DaemonName{PID: os.Getpid(), Version: d.options.Version, StartedAt: stamp(d.began)},
		Services: make([]ipc.Service, 0, len(names)),
	}
	for _, n := range names {
		facts, _ := p.Facts(n)
		s, known := view.Status[n]
		one := service(facts, s, known, view, reveal)
		d.doubt(p, &one)
		status.Services = append(status.Services, one)
	}
	return status
}

// name is a project as people tell it from others.
func (d *Daemon) name(p *project.Project) ipc.ProjectName {
	r := p.Title()
	name := ipc.ProjectName{Name: r.Name, Dir: r.Dir}
	if r.UsedAt.IsZero() { // it goes by its file until something is wanted
		if conf, err := p.Config(); err == nil {
			name.Name = conf.Name
		}
	}
	var others []string
	for _, other := range d.known() {
		if o := other.Title(); o.Name == name.Name && o.Dir != r.Dir {
			others = append(others, o.Dir)
		}
	}
	name.Label = label(name.Name, r.Dir, others)
	return name
}

// label tells a project from those of its name: by as much of the end of its
// directory as the others do not have. One whose directory has its name, and no
// other's, needs no more.
func label(name, dir string, others []string) string {
	if len(others) == 0 {
		return name
	}
	parts := strings.Split(strings.Trim(dir, "/"), "/")
	for n := 1; n <= len(parts); n++ {
		end := strings.Join(parts[len(parts)-n:], "/")
		if slices.ContainsFunc(others, func(o string) bool { return strings.HasSuffix(o, "/"+end) }) {
			continue
		}
		if end == name {
			return name
		}
		return fmt.Sprintf("%s (%s)", name, end)
	}
	return fmt.Sprintf("%s (%s)", name, dir)
}

func (d *Daemon) watch(ctx context.Context, a ipc.StatusArgs, send func(ipc.Status) error) error {
	p, err := d.look(a.Project)
	if err != nil {
		return fault(err)
	}
	names, err := named(p, a.Services)
	if err != nil {
		return fault(err)
	}
	sub, end := p.Watch()
	defer end()
	var last *ipc.Status
	for {
		turned := d.doubts.next()
		now := d.statusOf(p, names, a.Reveal)
		if last == nil || !reflect.DeepEqual(now, last) {
			if err := send(*now); err != nil {
				return err
			}
			last = now
		}
		if awaitChange(ctx, sub, turned) != nil {
			return nil // the client has seen enough
		}
	}
}

// awaitChange returns when something of a project has changed, or a doubt came
// up or is over, and with an error when ctx or the project has ended.
func awaitChange(ctx context.Context, sub *supervisor.Subscription, turned <-chan struct{}) error {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	var woken atomic.Bool
	go func() {
		select {
		case <-turned:
			woken.Store(true)
			stop()
		case <-waiting.Done():
		}
	}()
	_, err := sub.Next(waiting)
	if woken.Load() {
		return ctx.Err()
	}
	return err
}

func (d *Daemon) list(ctx context.Context, _ ipc.NoArgs) (ipc.Projects, error) {
	d.awaitWishes(ctx)
	all := ipc.Projects{Projects: []ipc.ProjectSummary{}}
	for _, p := range d.known() {
		r := p.Record()
		if r.UsedAt.IsZero() {
			continue // somebody looked, and nothing was ever wanted
		}
		sum := ipc.ProjectSummary{ProjectName: d.name(p), Wanted: r.Wanted(), UsedAt: r.UsedAt}
		if _, err := os.Stat(r.Dir); err != nil {
			sum.Missing = true
		}
		for name, s := range p.View().Status {
			switch {
			case !r.Wants[name]:
			case s.Up():
				sum.Ready++
			case s.Hopeless():
				sum.Failed++
			}
		}
		all.Projects = append(all.Projects, sum)
	}
	slices.SortFunc(all.Projects, func(a, b ipc.ProjectSummary) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Dir, b.Dir))
	})
	return all, nil
}

func (d *Daemon) history(_ context.Context, a ipc.HistoryArgs) (ipc.History, error) {
	p, err := d.look(a.Project)
	if err != nil {
		return ipc.History{}, fault(err)
	}
	names, err := p.Known(a.Services)
	if err != nil {
		return ipc.History{}, fault(err)
	}
	h := ipc.History{Runs: []ipc.Run{}}
	for _, n := range names {
		runs := p.History(n).Runs
		for i := len(runs) - 1; i >= 0; i-- {
			h.Runs = append(h.Runs, run(n, runs[i]))
		}
	}
	return h, nil
}

func (d *Daemon) env(ctx context.Context, a ipc.EnvArgs) (ipc.Env, error) {
	p, err := d.open(a.Project)
	if err != nil {
		return ipc.Env{}, fault(err)
	}
	vars, err := p.Env(ctx, a.File, a.Service, a.Env)
	if err != nil {
		return ipc.Env{}, fault(err)
	}
	answer := ipc.Env{Vars: []ipc.Var{}}
	for _, v := range vars {
		shown := ipc.Var{Name: v.Name, Value: v.Value, Origin: v.Origin, Secret: v.Secret}
		if v.Secret && !a.Reveal {
			shown.Value = masked(v.Name, v.Value)
		}
		answer.Vars = append(answer.Vars, shown)
	}
	return answer, nil
}

// masked hides a secret: all of it, or the password of a URL.
func masked(name, value string) string {
	if m := config.MaskURL(value); m != value && !config.Secret(name, "") {
		return m
	}
	return "***"
}

// queries is what to read of which services' logs.
func (d *Daemon) queries(a ipc.LogsArgs) (p *project.Project, names []string, queries []logs.Query, err error) {
	p, err = d.look(a.Project)
	if err != nil {
		return nil, nil, nil, fault(err)
	}
	names, err = p.Known(a.Services)
	if err != nil {
		return nil, nil, nil, fault(err)
	}
	view := p.View()
	for _, n := range names {
		q, err := query(a, view.Status[n], p.History(n).Next()-1)
		if err != nil {
			return nil, nil, nil, err
		}
		queries = append(queries, q)
	}
	return p, names, queries, nil
}

// logStore tells where a log is, and stays as long as it is followed: the client
// sees by that that there is a daemon.
func (d *Daemon) logStore(ctx context.Context, a ipc.LogsArgs, send func(ipc.LogStore) error) error {
	p, names, queries, err := d.queries(a)
	if err != nil {
		return err
	}
	if len(a.Services) != 1 || len(names) != 1 {
		return invalid("services", errors.New("one is to be named"), "locald logs --raw web")
	}
	err = send(ipc.LogStore{Dir: p.Log(names[0]), FromRun: queries[0].FromRun, ToRun: queries[0].ToRun})
	if err == nil && a.Follow {
		<-ctx.Done()
	}
	return err
}

func (d *Daemon) logs(ctx context.Context, a ipc.LogsArgs, send func(ipc.LogLine) error) error {
	p, names, queries, err := d.queries(a)
	if err != nil {
		return err
	}
	if a.Follow {
		return followLogs(ctx, p, names, queries, newcomers(a), send)
	}
	return readLogs(ctx, p, names, queries, send)
}

// query is what to read of one service's log.
func query(a ipc.LogsArgs, s supervisor.Status, lastRun int) (logs.Query, error) {
	q := logs.Query{Tail: a.Tail, After: a.After, Stream: logs.Stream(a.Stream), Output: a.Output}
	current := max(s.Run, lastRun)
	var err error
	if q.Since, err = when(a.Since, "--since"); err != nil {
		return q, err
	}
	if q.Until, err = when(a.Until, "--until"); err != nil {
		return q, err
	}
	if a.Grep != "" {
		if q.Grep, err = regexp.Compile(a.Grep); err != nil {
			return q, invalid("--grep", err, "--grep 'ready to accept'")
		}
	}
	switch q.Stream {
	case "", logs.Stdout, logs.Stderr:
	default:
		return q, invalid("--stream", fmt.Errorf("%q is neither stdout nor stderr", a.Stream), "--stream stderr")
	}
	switch a.Run {
	case "":
	case "recent":
		q.FromRun = max(current-1, 0)
	case "current":
		q.FromRun, q.ToRun = current, current
	case "previous":
		q.FromRun, q.ToRun = current-1, current-1
		if current < 2 {
			q.FromRun, q.ToRun = math.MaxInt, math.MaxInt // there is none
		}
	default:
		n, err := strconv.Atoi(a.Run)
		if err != nil || n < 1 {
			return q, invalid("--run", fmt.Errorf("%q is not current, previous, recent or a number", a.Run), "--run previous")
		}
		q.FromRun, q.ToRun = n, n
	}
	return q, nil
}

func invalid(what string, err error, hint string) error {
	return &ipc.Error{Code: ipc.CodeInvalidRequest, Message: what + ": " + err.Error(), Hint: hint}
}

// when is a moment: so long ago, or RFC 3339.
func when(text, what string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	ago, err := config.Duration(text)
	if err != nil {
		return time.Time{}, invalid(what, fmt.Errorf("%q is neither a duration nor a time like 2026-01-02T15:04:05Z", text), what+" 10m")
	}
	return time.Now().Add(-ago), nil
}

// readLogs sends what is there, the lines of several services by time.
func readLogs(ctx context.Context, p *project.Project, names []string, queries []logs.Query, send func(ipc.LogLine) error) error {
	if len(names) == 1 {
		return logs.OpenReader(p.Log(names[0])).Read(ctx, queries[0], func(l logs.Line) error {
			return send(line(names[0], l))
		})
	}
	return mergeLogs(ctx, p, names, queries, send)
}

// mergeLogs reads all services at once, each a bounded way ahead, and sends
// the oldest line that any of them has.
func mergeLogs(ctx context.Context, p *project.Project, names []string, queries []logs.Query, send func(ipc.LogLine) error) error {
	ctx, cancel := context.WithCancel(ctx)
	errs := make([]error, len(names))
	sources := make([]*source, len(names))
	var reading sync.WaitGroup
	for i, n := range names {
		sources[i] = &source{lines: make(chan ipc.LogLine, 64)}
		reading.Go(func() { errs[i] = sources[i].read(ctx, n, logs.OpenReader(p.Log(n)), queries[i]) })
	}
	err := merge(sources, send)
	cancel()
	reading.Wait()
	if err != nil {
		return err
	}
	return errors.Join(errs...)
}

// awaitServices tells of each service of a project that is not among names, until
// ctx ends.
func awaitServices(ctx context.Context, p *project.Project, names []string, came func(name string)) {
	sub, end := p.Watch()
	defer end()
	known := map[string]bool{}
	for _, n := range names {
		known[n] = true
	}
	meet := func(s supervisor.Status) {
		if !known[s.Service] {
			known[s.Service] = true
			came(s.Service)
		}
	}
	for _, s := range sub.Snapshot {
		meet(s)
	}
	for {
		changes, err := sub.Next(ctx)
		if err != nil {
			return
		}
		for _, c := range changes {
			meet(c.Status)
		}
	}
}

// source is the log of one service on its way into a merge.
type source struct {
	lines chan ipc.LogLine
	head  *ipc.LogLine // the oldest that has not been sent; nil at the end
}

func (s *source) read(ctx context.Context, name string, r *logs.Reader, q logs.Query) error {
	defer close(s.lines)
	return r.Read(ctx, q, func(l logs.Line) error {
		select {
		case s.lines <- line(name, l):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

func (s *source) next() {
	s.head = nil
	if l, more := <-s.lines; more {
		s.head = &l
	}
}

// merge sends the lines of all sources, the oldest first.
func merge(sources []*source, send func(ipc.LogLine) error) error {
	for _, s := range sources {
		s.next()
	}
	for {
		var oldest *source
		for _, s := range sources {
			if s.head != nil && (oldest == nil || s.head.Time.Before(oldest.head.Time)) {
				oldest = s
			}
		}
		if oldest == nil {
			return nil
		}
		if err := send(*oldest.head); err != nil {
			return err
		}
		oldest.next()
	}
}

// newcomers is what to follow of a service that comes while all are followed;
// nil when those that were named are, or only up to a time.
func newcomers(a ipc.LogsArgs) *logs.Query {
	if len(a.Services) > 0 || a.Until != "" {
		return nil
	}
	a.Run = ""
	q, err := query(a, supervisor.Status{}, 0)
	if err != nil {
		return nil
	}
	q.Tail, q.After = -1, 0
	return &q
}

// followLogs sends what is there and then what comes, each service by itself,
// and with other not nil also of services that come later.
func followLogs(ctx context.Context, p *project.Project, names []string, queries []logs.Query, other *logs.Query, send func(ipc.LogLine) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var turn sync.Mutex
	var following sync.WaitGroup
	follow := func(n string, q logs.Query) {
		following.Go(func() {
			err := logs.OpenReader(p.Log(n)).Follow(ctx, q, func(batch []logs.Line) error {
				turn.Lock()
				defer turn.Unlock()
				for _, l := range batch {
					if err := send(line(n, l)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				cancel(err)
			}
		})
	}
	for i, n := range names {
		follow(n, queries[i])
	}
	if other != nil {
		following.Go(func() {
			awaitServices(ctx, p, names, func(n string) { follow(n, *other) })
		})
	}
	following.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
