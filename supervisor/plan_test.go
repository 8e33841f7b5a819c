package supervisor

import (
	"bytes"
	"fmt"
	"testing"
)

// TestPlan writes down what up means for a shop of a database, a migration, a
// web server and a worker, in every situation that matters.
func TestPlan(t *testing.T) {
	running := Status{Phase: Ready, Want: Want{Up: true, Generation: 1}, Generation: 1}
	done := Status{Phase: Finished, Task: true, Want: Want{Up: true, Generation: 1}, Generation: 1}
	stopped := Status{Phase: Stopped, Want: Want{Generation: 2}}
	shop := func(change func(parts map[string]*Part)) []Part {
		db := Part{Name: "db", Known: true, Status: running, Active: true}
		migrate := Part{Name: "migrate", Known: true, Status: done, Active: true, Deps: []Dep{{"db", UntilReady}}}
		web := Part{Name: "web", Known: true, Status: running, Active: true, Deps: []Dep{{"migrate", UntilReady}, {"db", UntilReady}}}
		mail := Part{Name: "mail", Known: true, Status: running, Active: true}
		change(map[string]*Part{"db": &db, "migrate": &migrate, "web": &web, "mail": &mail})
		return []Part{web, db, migrate, mail}
	}
	tests := []struct {
		name   string
		change func(p map[string]*Part)
		ask    Ask
	}{
		{"nothing is there yet", func(p map[string]*Part) {
			for _, part := range p {
				part.Known, part.Status = false, Status{}
			}
		}, Ask{}},
		{"everything runs", func(map[string]*Part) {}, Ask{}},
		{"everything runs, recreate", func(map[string]*Part) {}, Ask{Recreate: true}},
		{"everything runs, recreate web", func(map[string]*Part) {}, Ask{Recreate: true, Names: []string{"web"}}},
		{"the environment of web changed", func(p map[string]*Part) { p["web"].Changes = []string{"env LOG changed", "port changed"} }, Ask{}},
		{"the database changed", func(p map[string]*Part) { p["db"].Changes = []string{"version changed"} }, Ask{}},
		{"web was stopped", func(p map[string]*Part) { p["web"].Status = stopped }, Ask{}},
		{"web was stopped, up mail", func(p map[string]*Part) { p["web"].Status = stopped }, Ask{Names: []string{"mail"}}},
		{"db was stopped, restart web", func(p map[string]*Part) { p["db"].Status = stopped }, Ask{Names: []string{"web"}, Alone: true, Restart: true}},
		{"web failed", func(p map[string]*Part) {
			p["web"].Status.Phase, p["web"].Status.Reason = Failed, "exited with 3"
		}, Ask{}},
		{"web ended", func(p map[string]*Part) { p["web"].Status.Phase = Finished }, Ask{}},
		{"the migration failed", func(p map[string]*Part) {
			p["migrate"].Status.Phase, p["migrate"].Status.Reason = Failed, "exited with 3"
			p["web"].Status.Phase = Waiting
		}, Ask{}},
		{"up migrate", func(map[string]*Part) {}, Ask{Names: []string{"migrate"}}},
		{"up web alone, nothing there", func(p map[string]*Part) {
			for _, part := range p {
				part.Known, part.Status = false, Status{}
			}
		}, Ask{Names: []string{"web"}, Alone: true}},
		{"mail has a profile that is not active", func(p map[string]*Part) {
			p["mail"].Active, p["mail"].Known = false, false
		}, Ask{}},
		{"mail is no longer in the file", func(p map[string]*Part) { p["mail"].Gone = true }, Ask{}},
	}
	var got bytes.Buffer
	for _, test := range tests {
		fmt.Fprintf(&got, "%s\n", test.name)
		for _, s := range Plan(shop(test.change), test.ask) {
			fmt.Fprintf(&got, "  %s\n", s)
		}
		fmt.Fprintln(&got)
	}
	golden(t, "testdata/plan.golden", got.Bytes())
}

func TestBlocked(t *testing.T) {
	view := View{
		Deps: map[string][]Dep{"web": {{"migrate", UntilReady}}, "migrate": {{"db", UntilReady}}},
		Status: map[string]Status{
			"db":      {Phase: Failed, Want: Want{Up: true}},
			"migrate": {Phase: Waiting, Task: true, Want: Want{Up: true}},
		},
	}
	if why, forGood := view.Blocked("web"); !forGood || why != "waits for migrate, which cannot start" {
		t.Errorf("with a failed database behind a task: %q, %v", why, forGood)
	}
	view.Status["db"] = Status{Phase: Starting, Want: Want{Up: true}}
	if why, forGood := view.Blocked("web"); forGood || why != "waits for migrate" {
		t.Errorf("with a database that starts: %q, %v", why, forGood)
	}
}
