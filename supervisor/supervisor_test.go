package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locald/locald/runtime"
)

// within is a probe that passes after a while.
func within(d time.Duration) func(context.Context, int, runtime.Instance, func(Finding)) {
	return func(ctx context.Context, _ int, _ runtime.Instance, report func(Finding)) {
		select {
		case <-time.After(d):
			report(Finding{Ready: true})
		case <-ctx.Done():
		}
	}
}

func service(name string, rt *fake, deps ...string) *Service {
	s := &Service{
		Name: name, Grace: time.Second, Runtime: rt,
		Policy:  Policy{Restart: OnFailure, Max: 3, Backoff: time.Second},
		Prepare: func(context.Context, int, func(runtime.Progress)) error { return nil },
		Spec: func(_ context.Context, run int) (runtime.Spec, error) {
			return runtime.Spec{Service: name, Run: run}, nil
		},
		Check: within(0),
	}
	for _, d := range deps {
		s.Deps = append(s.Deps, Dep{d, UntilReady})
	}
	return s
}

// keep serves a supervisor in a bubble of fake time and returns the changes of
// phase that a subscriber heard, with when.
func keep(t *testing.T, script func(s *Supervisor)) []string {
	t.Helper()
	var seen []string
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := New()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Serve(ctx) }()
		sub, end := s.Subscribe()
		go func() {
			last := map[string]string{}
			for {
				changes, err := sub.Next(ctx)
				if err != nil {
					return
				}
				for _, c := range changes {
					now := fmt.Sprintf("%s %d %s", c.Status.Service, c.Status.Run, c.Status.Phase)
					if last[c.Status.Service] != now {
						last[c.Status.Service] = now
						seen = append(seen, fmt.Sprintf("%v %s", time.Since(began).Round(time.Second/2), now))
					}
				}
			}
		}()
		script(s)
		synctest.Wait()
		end()
		cancel()
		<-done
	})
	return seen
}

func up(s *Service) Wish { return Wish{Name: s.Name, Up: true, Service: s} }

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRestsLongerEachTimeThenGivesUp(t *testing.T) {
	rt := &fake{}
	web := service("web", rt)
	got := keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		for range 4 {
			synctest.Wait()
			rt.last().end(1, "")
			time.Sleep(5 * time.Second)
		}
	})
	expect(t, got,
		"0s web 1 preparing", "0s web 1 starting", "0s web 1 ready", "0s web 1 backoff",
		"1s web 2 preparing", "1s web 2 starting", "1s web 2 ready",
		"5s web 3 preparing", "5s web 3 starting", "5s web 3 ready", // it had been ready for a second
		"10s web 4 preparing", "10s web 4 starting", "10s web 4 ready",
		"15s web 4 failed")
}

func TestALongHealthyTimeForgivesEverything(t *testing.T) {
	rt := &fake{}
	web := service("web", rt)
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		for range 20 {
			synctest.Wait()
			time.Sleep(11 * time.Second)
			rt.last().end(1, "")
		}
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Ready || now.Run != 21 {
			t.Errorf("after 20 crashes 11 s apart: %s in run %d", now.Phase, now.Run)
		}
	})
}

func TestADependentStartsWhenWhatItDependsOnIsReady(t *testing.T) {
	rt := &fake{}
	db, web := service("db", rt), service("web", rt, "db")
	db.Check = within(3 * time.Second)
	got := keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web), up(db)})
		time.Sleep(5 * time.Second)
	})
	slices.SortStableFunc(got, func(a, b string) int { // what happens in one instant has no order
		return strings.Compare(strings.Fields(a)[1], strings.Fields(b)[1])
	})
	expect(t, got, "0s db 1 preparing", "0s db 1 starting", "3s db 1 ready", "0s web 0 waiting", "3s web 1 preparing", "3s web 1 starting", "3s web 1 ready")
}

func TestDownStopsDependentsFirst(t *testing.T) {
	rt := &fake{stubborn: true}
	db, web := service("db", rt), service("web", rt, "db")
	got := keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web), up(db)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "db"}, {Name: "web"}})
		time.Sleep(5 * time.Second)
	})
	expect(t, got[len(got)-4:], "0s web 1 stopping", "1s web 1 stopped", "1s db 1 stopping", "2s db 1 stopped")
}

func TestRestartOfBothWaitsForTheNewDependency(t *testing.T) {
	rt := &fake{stubborn: true}
	db, web := service("db", rt), service("web", rt, "db")
	got := keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web), up(db)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "db", Up: true, Renew: true}, {Name: "web", Up: true, Renew: true}})
		time.Sleep(5 * time.Second)
	})
	expect(t, got[len(got)-8:], "1s web 1 waiting", "1s db 1 stopping", "2s db 2 preparing", "2s db 2 starting", "2s db 2 ready",
		"2s web 2 preparing", "2s web 2 starting", "2s web 2 ready")
}

func TestOnlyTheLatestWishCounts(t *testing.T) {
	rt := &fake{takes: time.Second}
	web := service("web", rt)
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		for i := range 50 {
			s.Apply([]Wish{{Name: "web", Up: i%2 == 0}})
		}
		s.Apply([]Wish{{Name: "web"}})
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Stopped {
			t.Errorf("wanted down, is %s", now.Phase)
		}
	})
	if n := rt.starts(); n > 0 {
		t.Errorf("%d starts for a service nobody wants", n)
	}
}

func TestWhatCannotStartIsNotTriedAgain(t *testing.T) {
	rt := &fake{errs: []error{&runtime.Fault{Code: "command_missing", Hint: "node", Err: fmt.Errorf("nodee: %w", runtime.ErrInvalid)}}}
	web, other := service("web", rt), service("zoo", rt)
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		time.Sleep(time.Hour)
		if now := s.Snapshot()[0]; now.Phase != Failed || now.Code != "command_missing" || now.Hint != "node" || now.Run != 1 {
			t.Errorf("got %+v", now)
		}
		s.Apply([]Wish{up(other)})
		synctest.Wait()
		if now := s.Snapshot()[1]; now.Phase != Ready {
			t.Errorf("the other service is %s", now.Phase)
		}
	})
}

func TestAnEngineThatComesBackIsUsed(t *testing.T) {
	rt := &fake{errs: []error{runtime.ErrUnavailable, runtime.ErrUnavailable}}
	web := service("web", rt)
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Failed || !now.Hopeless() {
			t.Errorf("while the engine is away: %s", now.Phase)
		}
		time.Sleep(time.Minute)
		if now := s.Snapshot()[0]; now.Phase != Ready {
			t.Errorf("a minute after it is back: %s", now.Phase)
		}
	})
}

func TestAStopThatFailsIsTriedAgainBeforeAnythingStarts(t *testing.T) {
	rt := &fake{immortal: true}
	web := service("web", rt)
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web"}})
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Failed || now.Code != "stop_failed" || !strings.Contains(now.Reason, "42") {
			t.Errorf("got %+v", now)
		}
		s.Apply([]Wish{{Name: "web", Up: true}})
		synctest.Wait()
		if rt.starts() != 1 {
			t.Error("a second copy was started beside one that could not be ended")
		}
		rt.immortal = false
		s.Apply([]Wish{{Name: "web", Up: true, Renew: true}})
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Ready || now.Run != 2 {
			t.Errorf("once it could be ended: %+v", now)
		}
	})
}

func TestStoppedWhilePreparing(t *testing.T) {
	rt := &fake{}
	web := service("web", rt)
	web.Prepare = func(ctx context.Context, _ int, _ func(runtime.Progress)) error {
		<-ctx.Done()
		time.Sleep(time.Second) // it cleans up after itself
		return ctx.Err()
	}
	got := keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web"}})
		time.Sleep(5 * time.Second)
	})
	expect(t, got, "0s web 1 preparing", "0s web 1 stopping", "1s web 1 stopped")
}

func TestStoppedWhileStarting(t *testing.T) {
	rt := &fake{takes: time.Minute}
	web := service("web", rt)
	got := keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web"}})
		synctest.Wait()
	})
	expect(t, got, "0s web 1 preparing", "0s web 1 starting", "0s web 1 stopping", "0s web 1 stopped")
}

func TestATaskThatCompletedBeforeCountsAsCompleted(t *testing.T) {
	rt := &fake{}
	migrate, web := service("migrate", rt), service("web", rt, "migrate")
	migrate.Policy = Policy{Restart: Never, Task: true}
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{{Name: "migrate", Up: true, Service: migrate, Run: 4, Done: true}, up(web)})
		synctest.Wait()
		for _, now := range s.Snapshot() {
			if !now.Up() {
				t.Errorf("%s is %s", now.Service, now.Phase)
			}
		}
	})
	if n := rt.starts(); n != 1 {
		t.Errorf("%d starts, want the one of web", n)
	}
}

func TestAServiceThatLeavesTheProjectIsForgottenOnceItIsDown(t *testing.T) {
	rt := &fake{stubborn: true}
	web := service("web", rt)
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web", Forget: true}})
		synctest.Wait()
		if n := len(s.Snapshot()); n != 1 {
			t.Errorf("%d services while it stops", n)
		}
		time.Sleep(2 * time.Second)
		if n := len(s.Snapshot()); n != 0 {
			t.Errorf("%d services after it stopped", n)
		}
	})
}

func TestAProbeEndsWithItsInstance(t *testing.T) {
	rt := &fake{}
	web := service("web", rt)
	live, most := 0, 0
	web.Check = func(ctx context.Context, _ int, _ runtime.Instance, report func(Finding)) {
		live++
		most = max(most, live)
		report(Finding{Ready: true})
		<-ctx.Done()
		live--
	}
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		for range 5 {
			synctest.Wait()
			s.Apply([]Wish{{Name: "web", Up: true, Renew: true}})
		}
		synctest.Wait()
	})
	if most != 1 || live != 0 {
		t.Errorf("at most %d probes at once, %d left", most, live)
	}
}

func TestPrepareErrorsAreShown(t *testing.T) {
	rt := &fake{}
	web := service("web", rt)
	web.Prepare = func(context.Context, int, func(runtime.Progress)) error { return errors.New("disk on fire") }
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Backoff || now.Reason != "disk on fire" {
			t.Errorf("got %+v", now)
		}
		time.Sleep(10 * time.Second)
		if now := s.Snapshot()[0]; !now.Hopeless() {
			t.Errorf("after three tries: %+v", now)
		}
	})
}

func TestASecondDownIsJudgedByItself(t *testing.T) {
	rt := &fake{immortal: true}
	web := service("web", rt)
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web"}})
		synctest.Wait()
		rt.immortal = false
		sub, end := s.Subscribe(Wish{Name: "web", Renew: true})
		defer end()
		if now := sub.Snapshot[0]; !now.Stale() {
			t.Errorf("the failure of the last down would be taken for that of this one: %+v", now)
		}
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Stopped {
			t.Errorf("once it could be ended: %s", now.Phase)
		}
	})
}

func TestRestartAloneKeepsTheOrderAmongTheNamed(t *testing.T) {
	rt := &fake{stubborn: true}
	cache, db, web := service("cache", rt), service("db", rt), service("web", rt, "db", "cache")
	got := keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(cache), up(web), up(db)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "cache"}})
		time.Sleep(3 * time.Second)
		s.Apply([]Wish{{Name: "db", Up: true, Renew: true, Alone: true}, {Name: "web", Up: true, Renew: true, Alone: true}})
		time.Sleep(5 * time.Second)
	})
	expect(t, got[len(got)-6:], "5s db 2 preparing", "5s db 2 starting", "5s db 2 ready", "5s web 2 preparing", "5s web 2 starting", "5s web 2 ready")
}

// After a crash of the daemon what was wanted starts without what was not. That
// is so however early in the restore the dependency is stopped.
func TestADependencyThatIsStoppedDuringARestoreIsNotWaitedFor(t *testing.T) {
	rt := &fake{takes: time.Second}
	db, web := service("db", rt), service("web", rt, "db")
	alone := func(s *Service) Wish { return Wish{Name: s.Name, Up: true, Alone: true, Service: s} }
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{alone(db), alone(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "db"}})
		time.Sleep(5 * time.Second)
		for _, now := range s.Snapshot() {
			if want := map[string]Phase{"db": Stopped, "web": Ready}[now.Service]; now.Phase != want {
				t.Errorf("%s is %s, want %s", now.Service, now.Phase, want)
			}
		}
		// From its first start on it is like any other.
		rt.last().end(1, "")
		time.Sleep(5 * time.Second)
		for _, now := range s.Snapshot() {
			if want := map[string]Phase{"db": Stopped, "web": Waiting}[now.Service]; now.Phase != want {
				t.Errorf("later %s is %s, want %s", now.Service, now.Phase, want)
			}
		}
	})
}

func TestTheEndOfARunIsToldEvenWhenTheNextBeginsAtOnce(t *testing.T) {
	rt := &fake{}
	web := service("web", rt)
	var runs []Run
	keep(t, func(s *Supervisor) {
		sub, end := s.Subscribe(up(web))
		defer end()
		synctest.Wait()
		time.Sleep(5 * time.Second)
		rt.last().end(3, "")
		synctest.Wait()
		for _, c := range sub.Rest() {
			if c.Run != nil {
				runs = append(runs, *c.Run)
			}
		}
	})
	var ended []Run
	for _, r := range runs {
		if !r.EndedAt.IsZero() {
			ended = append(ended, r)
		}
	}
	if len(ended) != 1 || ended[0].Number != 1 || ended[0].Exit.Code != 3 || ended[0].ReadyAt.IsZero() || ended[0].Reason != "exited with 3" {
		t.Errorf("ended: %+v", ended)
	}
	if last := runs[len(runs)-1]; last.Number != 2 || last.ReadyAt.IsZero() {
		t.Errorf("the last that was told: %+v", last)
	}
}

func TestAServiceThatHasNotRunYetTellsOfNoRun(t *testing.T) {
	rt := &fake{}
	migrate := service("migrate", rt)
	migrate.Policy = Policy{Restart: Never, Task: true}
	keep(t, func(s *Supervisor) {
		sub, end := s.Subscribe(Wish{Name: "migrate", Up: true, Service: migrate, Run: 4, Done: true})
		defer end()
		synctest.Wait()
		s.Apply([]Wish{{Name: "migrate"}})
		synctest.Wait()
		for _, c := range sub.Rest() {
			if c.Run != nil {
				t.Errorf("told of %+v, which was another daemon's", *c.Run)
			}
		}
	})
}

// moody is a runtime whose instances cannot do one thing for a while.
type moody struct {
	*fake
	waits error // what Wait answers

	mood           sync.Mutex
	stops, removes error // what the next Stop and the next Remove answer
}

// once is an error that is answered once.
func (m *moody) once(err *error) error {
	m.mood.Lock()
	defer m.mood.Unlock()
	now := *err
	*err = nil
	return now
}

type moodyLife struct {
	runtime.Instance
	of *moody
}

func (m *moody) Start(ctx context.Context, spec runtime.Spec) (runtime.Instance, error) {
	in, err := m.fake.Start(ctx, spec)
	return moodyLife{in, m}, err
}

func (l moodyLife) Wait(ctx context.Context) (runtime.Exit, error) {
	if l.of.waits != nil {
		return runtime.Exit{}, l.of.waits
	}
	return l.Instance.Wait(ctx)
}

func (l moodyLife) Stop(ctx context.Context, grace time.Duration) error {
	if err := l.of.once(&l.of.stops); err != nil {
		return err
	}
	return l.Instance.Stop(ctx, grace)
}

func (l moodyLife) Remove(context.Context) error {
	return l.of.once(&l.of.removes)
}

func TestWhatCannotBeRemovedWhileTheEngineIsAwayIsRemovedLater(t *testing.T) {
	rt := &moody{fake: &fake{}, removes: runtime.ErrUnavailable}
	web := service("web", rt.fake)
	web.Runtime = rt
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		rt.last().end(1, "")
		time.Sleep(time.Hour)
		if now := s.Snapshot()[0]; now.Phase != Ready || now.Run != 2 {
			t.Errorf("an hour after the engine was away for a moment: %s in run %d: %s", now.Phase, now.Run, now.Reason)
		}
	})
}

func TestWhatCannotBeStoppedWhileTheEngineIsAwayIsStoppedLater(t *testing.T) {
	rt := &moody{fake: &fake{}, stops: runtime.ErrUnavailable}
	web := service("web", rt.fake)
	web.Runtime = rt
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web"}})
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Failed || now.Code != "stop_failed" {
			t.Errorf("while the engine is away: %s %s", now.Phase, now.Code)
		}
		time.Sleep(time.Minute)
		if now := s.Snapshot()[0]; now.Phase != Stopped {
			t.Errorf("a minute after the engine was away for a moment: %s: %s", now.Phase, now.Reason)
		}
	})
}

func TestAnEndThatNobodyCanSeeIsAFailedStop(t *testing.T) {
	rt := &moody{fake: &fake{}, waits: errors.New("cannot know")}
	web := service("web", rt.fake)
	web.Runtime = rt
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web"}})
		time.Sleep(time.Hour)
		if now := s.Snapshot()[0]; now.Phase != Failed || now.Code != "stop_failed" {
			t.Errorf("an hour after down: %s %s", now.Phase, now.Code)
		}
	})
}

func TestALateEndOfWhatCouldNotBeEnded(t *testing.T) {
	rt := &fake{immortal: true}
	web := service("web", rt)
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web", Up: true, Renew: true}})
		synctest.Wait()
		rt.last().end(0, "")
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase != Ready || now.Run != 2 {
			t.Errorf("wanted up, and its old instance has ended: %s %s", now.Phase, now.Code)
		}
	})
}

func TestForceIsNotOvertakenByAsking(t *testing.T) {
	rt := &fake{stubborn: true}
	web := service("web", rt)
	web.Grace = time.Hour
	keep(t, func(s *Supervisor) {
		s.Apply([]Wish{up(web)})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web"}})
		synctest.Wait()
		s.Apply([]Wish{{Name: "web", Force: true}})
		s.Apply([]Wish{{Name: "web"}})
		synctest.Wait()
		if now := s.Snapshot()[0]; now.Phase.Live() {
			t.Errorf("after down --force: %s", now.Phase)
		}
	})
}

// TestManyActorsAtOnce: the coordinator ends with the latest status of each,
// and every subscriber hears every change in order.
func TestManyActorsAtOnce(t *testing.T) {
	rt := &fake{}
	s := New()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx) }()
	var wishes []Wish
	for i := range 20 {
		wishes = append(wishes, up(service(fmt.Sprintf("s%02d", i), rt)))
	}
	for range 10 {
		subs := make([]*Subscription, 3)
		for i := range subs {
			sub, end := s.Subscribe()
			defer end()
			subs[i] = sub
		}
		for i := range wishes {
			wishes[i].Renew = true
		}
		after := s.Apply(wishes)
		for _, sub := range subs {
			arrive(t, sub, after)
		}
	}
	cancel()
	<-done
}

// arrive hears until every service is ready in the generation that is wanted.
func arrive(t *testing.T, sub *Subscription, wanted []Status) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	goal, last := map[string]int{}, map[string]Status{}
	for _, w := range wanted {
		goal[w.Service] = w.Want.Generation
	}
	for len(goal) > 0 {
		changes, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("%d services never arrived, %v: %+v", len(goal), err, last)
		}
		for _, c := range changes {
			now, before := c.Status, last[c.Status.Service]
			if now.Generation < before.Generation || now.Run < before.Run {
				t.Fatalf("%s went back from run %d to %d", now.Service, before.Run, now.Run)
			}
			last[now.Service] = now
			if g, waits := goal[now.Service]; waits && now.Phase == Ready && now.Generation == g {
				delete(goal, now.Service)
			}
		}
	}
}

func TestWhatAServiceNeedsIsFetchedWhileItWaits(t *testing.T) {
	rt := &fake{}
	db, web := service("db", rt), service("web", rt, "db")
	db.Check = within(time.Minute)
	fetched := 0
	web.Fetch = func(ctx context.Context, run int, report func(runtime.Progress)) {
		fetched++
		report(runtime.Progress{Step: fmt.Sprintf("pulling for run %d", run)})
		<-ctx.Done()
	}
	keep(t, func(s *Supervisor) {
		sub, end := s.Subscribe(up(db), up(web))
		defer end()
		synctest.Wait()
		var steps []string
		for _, c := range sub.Rest() {
			if c.Progress != nil {
				steps = append(steps, string(c.Status.Phase)+": "+c.Progress.Step)
			}
		}
		if want := []string{"waiting: pulling for run 1"}; !slices.Equal(steps, want) {
			t.Errorf("while it waits: %q, want %q", steps, want)
		}
		s.Apply([]Wish{{Name: "web"}}) // which ends what is fetched
		s.Apply([]Wish{up(web)})
		time.Sleep(2 * time.Minute)
		if now := s.Snapshot()[1]; now.Phase != Ready || fetched != 2 {
			t.Errorf("%s after %d fetches", now.Phase, fetched)
		}
	})
}
