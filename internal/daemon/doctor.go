package daemon

import (
	"context"
	"fmt"
	"os"

	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/postgres"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// doctor says what locald found on this machine, and what to do about it.
func (d *Daemon) doctor(ctx context.Context, _ ipc.NoArgs) (ipc.Doctor, error) {
	report := ipc.Doctor{Checks: []ipc.Check{{
		Area: "daemon", Name: "locald", OK: true,
		Detail: fmt.Sprintf("version %s, process %d, socket %s, log %s, state in %s", d.options.Version, os.Getpid(), d.socket, d.options.Places.Log, d.options.Places.Dir),
	}}}
	report.Checks = append(report.Checks, d.files()...)
	if found, err := d.speaker.Discover(ctx); err != nil {
		report.Checks = append(report.Checks, ipc.Check{Area: "engine", Name: "all", Detail: err.Error(), Remedy: hintOf(err)})
	} else {
		report.Checks = append(report.Checks, enginesOf(found, d.engine(runtime.EngineBuiltin).Ping(ctx), d.speaker.Containerd(ctx))...)
	}
	report.Checks = append(report.Checks, natives(postgres.Installs(os.Getenv))...)
	for _, l := range keeper.Layers() {
		report.Checks = append(report.Checks, ipc.Check{Area: "containment", Name: l.Name, OK: l.Here || !l.Needed, Detail: l.Detail})
	}
	report.Checks = append(report.Checks, d.behind(ctx)...)
	report.Checks = append(report.Checks, d.ports()...)
	return report, nil
}

// enginesOf says of each engine whether projects that name none use it, and why.
// absent is why containers cannot be made without one, or nil.
func enginesOf(found []runtime.FoundEngine, absent error, c runtime.FoundEngine) []ipc.Check {
	var checks []ipc.Check
	used, named := "", false
	for _, f := range found {
		if f.Absent {
			continue // nobody expects an engine in every usual place
		}
		c := ipc.Check{Area: "engine", Name: f.Engine, OK: true, Detail: f.Host + ": " + f.Why}
		if f.Version != "" {
			c.Detail = f.Version + " at " + c.Detail
		}
		if f.Err != nil && f.Named {
			c.OK, c.Remedy, named = false, "unset DOCKER_HOST, or start the engine that it names", true
		}
		if f.Used {
			used = f.Engine
		}
		checks = append(checks, c)
	}
	b := ipc.Check{Area: "engine", Name: runtime.EngineBuiltin, OK: true}
	switch {
	case absent != nil:
		b.Detail, b.Remedy = absent.Error(), hintOf(absent)
	case used != "":
		b.Detail = fmt.Sprintf("could be used, but %s comes first; engine = %q", used, runtime.EngineBuiltin)
	case named:
		b.Detail = fmt.Sprintf("could be used, but another is named; engine = %q", runtime.EngineBuiltin)
	default:
		used, b.Detail = runtime.EngineBuiltin, "used: no engine answers"
	}
	checks = append(checks, b)
	if !c.Absent {
		checks = append(checks, containerdCheck(c, &used, named))
	}
	if used == "" {
		checks = append(checks, ipc.Check{
			Area: "engine", Name: "none", OK: true, Detail: "nothing makes containers here; services with an image cannot start",
			Remedy: "sudo apt-get install docker.io",
		})
	}
	return checks
}

// containerdCheck says the same of containerd, which comes last.
func containerdCheck(c runtime.FoundEngine, used *string, named bool) ipc.Check {
	check := ipc.Check{Area: "engine", Name: runtime.EngineContainerd, OK: true}
	at := c.Version + " at " + c.Host + ": "
	switch {
	case c.Err != nil:
		check.Detail, check.Remedy = c.Err.Error(), hintOf(c.Err)
	case *used != "":
		check.Detail = fmt.Sprintf("%scould be used, but %s comes first; engine = %q", at, *used, runtime.EngineContainerd)
	case named:
		check.Detail = fmt.Sprintf("%scould be used, but another is named; engine = %q", at, runtime.EngineContainerd)
	default:
		*used, check.Detail = runtime.EngineContainerd, at+"used: no other engine can be had"
	}
	return check
}

func natives(found []postgres.Install) []ipc.Check {
	if len(found) == 0 {
		return []ipc.Check{{Area: "postgres", Name: "none", OK: true, Detail: "no Postgres programs found; type = \"postgres\" needs a container engine", Remedy: "sudo apt-get install postgresql"}}
	}
	var checks []ipc.Check
	for _, i := range found {
		checks = append(checks, ipc.Check{Area: "postgres", Name: i.Version, OK: true, Detail: i.Bin})
	}
	return checks
}

// leftovers lists what this daemon and earlier ones made.
func (d *Daemon) leftovers(ctx context.Context, a ipc.LeftArgs) (ipc.Leftovers, error) {
	found, err := d.remains(ctx, a)
	return found, fault(err)
}

// behind is what is there and belongs to nothing that is kept.
func (d *Daemon) behind(ctx context.Context) []ipc.Check {
	if !d.restored() {
		return nil
	}
	found, err := d.remains(ctx, ipc.LeftArgs{})
	if err != nil {
		return []ipc.Check{{Area: "leftovers", Name: "all", Detail: err.Error()}}
	}
	var checks []ipc.Check
	for _, t := range found.Things {
		if t.State == ipc.ThingLeft {
			checks = append(checks, ipc.Check{Area: "leftovers", Name: t.Kind, Detail: t.String(), Remedy: t.Remedy})
		}
	}
	if len(checks) == 0 {
		checks = append(checks, ipc.Check{Area: "leftovers", Name: "all", OK: true, Detail: "none"})
	}
	return checks
}

// ports is every port that a service is to have and somebody else has.
func (d *Daemon) ports() []ipc.Check {
	var checks []ipc.Check
	for _, p := range d.known() {
		for name, taken := range p.Taken() {
			checks = append(checks, ipc.Check{Area: "ports", Name: d.name(p).Label + "/" + name, Detail: taken.Error(), Remedy: "locald down " + name + ", or end what has the port"})
		}
	}
	if len(checks) == 0 {
		checks = append(checks, ipc.Check{Area: "ports", Name: "services", OK: true, Detail: "nobody else has a port of a service"})
	}
	return checks
}
