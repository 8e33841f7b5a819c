package project

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/env"
	"github.com/locald/locald/internal/logs"
	"github.com/locald/locald/internal/probe"
	"github.com/locald/locald/runtime"
	"github.com/locald/locald/supervisor"
)

// check finds out whether the service is ready.
func (s *service) check(ctx context.Context, run int, in runtime.Instance, report func(supervisor.Finding)) {
	c := s.conf
	looked := s.readyAlive() // which is before it can have listened
	tell := func(f probe.Finding) {
		if f.Ready && !looked {
			looked = true
			if warning := exposed(ctx, in); warning != "" {
				s.project.machine.Note(s.log(), run, warning)
				if f.Hint == "" {
					f.Hint = warning
				}
			}
		}
		report(supervisor.Finding{Ready: f.Ready, Overdue: f.Overdue, Detail: s.project.given.mask(c.Name, f.Detail), Hint: f.Hint})
	}
	probe.Unpaused(ctx, in, tell, func(tell func(probe.Finding)) { s.look(ctx, run, in, tell) })
}

// readyAlive reports whether the service is ready as soon as it is alive.
func (s *service) readyAlive() bool {
	c := s.conf
	return c.Health.None || c.Type == config.TypeWorker && !c.Health.Written
}

// look chooses the check.
func (s *service) look(ctx context.Context, run int, in runtime.Instance, tell func(probe.Finding)) {
	c := s.conf
	switch {
	case c.Type == config.TypeTask:
	case c.Type == config.TypePostgres && !c.Health.Written:
		s.checkPostgres(ctx, in, tell)
	case c.Health.Written && !c.Health.None:
		s.checkHealth(ctx, run, in, tell)
	case s.readyAlive():
		probe.Alive{}.Run(ctx, in, tell)
	case s.contained():
		s.checkContainer(ctx, in, tell)
	case c.Port != 0:
		probe.Listen{Port: c.Port}.Run(ctx, in, tell)
	default:
		s.checkGiven(ctx, in, tell)
	}
}

// exposed warns of an instance that other machines reach; empty when none does,
// or nobody can tell.
func exposed(ctx context.Context, in runtime.Instance) string {
	e, ok := in.(runtime.Exposer)
	if !ok {
		return ""
	}
	addrs, err := e.Exposed(ctx)
	if err != nil || len(addrs) == 0 {
		return ""
	}
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return "other machines can reach it on " + strings.Join(words, ", ") + ": have it listen on $HOST, which is 127.0.0.1"
}

// giveUp is how long a service may take to listen on the PORT it was given
// until it is taken for one that does not.
const giveUp = 10 * time.Second

// checkGiven is for a service that was given a PORT it need not listen on: its
// last run tells whether to wait for it.
func (s *service) checkGiven(ctx context.Context, in runtime.Instance, tell func(probe.Finding)) {
	listen := probe.Listen{Port: s.ports()[""], Wait: giveUp}
	deaf := s.project.records.deaf(s.conf.Name)
	if deaf {
		probe.Alive{}.Run(ctx, in, tell)
	}
	listen.Run(ctx, in, func(f probe.Finding) {
		if f.Ready {
			s.project.records.setDeaf(s.conf.Name, f.Hint != "")
		}
		if !deaf {
			tell(f)
		}
	})
}

func (s *service) checkContainer(ctx context.Context, in runtime.Instance, tell func(probe.Finding)) {
	port := s.ports()[""]
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	switch {
	case in.Info().Healthcheck:
		probe.Healthcheck{}.Run(ctx, in, tell)
	case port == 0:
		probe.Alive{}.Run(ctx, in, tell)
	case config.IsPostgresImage(s.conf.Image):
		user, _, database := env.PostgresOf(s.written())
		probe.Postgres{Addr: addr, User: user, Database: database}.Run(ctx, in, tell)
	default:
		probe.Published{Addr: addr}.Run(ctx, in, tell)
	}
}

// checkHealth probes as the service's own configuration says.
func (s *service) checkHealth(ctx context.Context, run int, in runtime.Instance, tell func(probe.Finding)) {
	c, err := s.expanded(run)
	if err != nil {
		tell(probe.Finding{Detail: "health: " + err.Error()})
		return
	}
	h := c.Health
	policy := probe.Policy{Interval: h.Interval, Timeout: h.Timeout, Retries: h.Retries, StartPeriod: h.StartPeriod}
	var check probe.Check
	switch {
	case h.HTTP != "":
		var target string
		target, err = s.healthURL(h.HTTP)
		check = probe.HTTP{URL: target, Policy: policy, Secure: s.project.machine.Get}
	case h.TCP != 0:
		check = probe.TCP{Addr: fmt.Sprintf("127.0.0.1:%d", s.outside(h.TCP)), Policy: policy}
	case !h.Command.Empty():
		check, err = s.healthCommand(run, h.Command, policy)
	case h.Log != "":
		check, err = s.healthLog(run)
	case h.Notify:
		check, err = s.project.notifications(s)
	default:
		check = probe.Alive{}
	}
	if err != nil {
		tell(probe.Finding{Detail: "health: " + err.Error()})
		return
	}
	check.Run(ctx, in, tell)
}

// outside is where on this host a port of the service is reached; -1 is its
// main one.
func (s *service) outside(port int) int {
	if port < 0 {
		return s.ports()[""]
	}
	for name, host := range s.ports() {
		if s.inside(name) == port {
			return host
		}
	}
	return port
}

// healthURL is what an http check asks: a path, ":port/path" or a whole URL.
func (s *service) healthURL(target string) (string, error) {
	switch {
	case strings.HasPrefix(target, "/"):
		return fmt.Sprintf("http://127.0.0.1:%d%s", s.ports()[""], target), nil
	case strings.HasPrefix(target, ":"):
		inside, path, _ := strings.Cut(target[1:], "/")
		n, err := strconv.Atoi(inside)
		if err != nil {
			return "", fmt.Errorf("%q: not a port", target)
		}
		return fmt.Sprintf("http://127.0.0.1:%d/%s", s.outside(n), path), nil
	}
	_, err := url.Parse(target)
	return target, err
}

// healthCommand runs inside the container, or on this host as the service
// would.
func (s *service) healthCommand(run int, command config.Command, policy probe.Policy) (probe.Check, error) {
	check := probe.Command{Args: command.Args(), Policy: policy}
	if s.contained() {
		return check, nil
	}
	vars, err := s.environment(run)
	if err != nil {
		return nil, err
	}
	list := make([]string, len(vars))
	for i, v := range vars {
		list[i] = v.Entry()
	}
	check.On = probe.OnHost(s.conf.Workdir, list)
	return check, nil
}

func (s *service) healthLog(run int) (probe.Check, error) {
	pattern, err := regexp.Compile(s.conf.Health.Log)
	if err != nil {
		return nil, err
	}
	return probe.Log{Pattern: pattern, Lines: func(ctx context.Context, emit func(line []byte)) error {
		q := logs.Query{Tail: -1, FromRun: run, ToRun: run}
		return logs.OpenReader(s.log()).Follow(ctx, q, func(batch []logs.Line) error {
			for _, l := range batch {
				if l.Stream == logs.Stdout || l.Stream == logs.Stderr {
					emit(l.Data)
				}
			}
			return nil
		})
	}}, nil
}

// notifications is the check of a service that says itself when it is ready.
func (p *Project) notifications(s *service) (probe.Check, error) {
	socket, err := p.machine.notifySocket(s.notify())
	if err != nil {
		return nil, err
	}
	return probe.Notify{Socket: socket}, nil
}

// listensTo opens the socket that a process service may write to, before it
// starts.
func (s *service) listensTo() error {
	if s.contained() || s.conf.Type == config.TypePostgres {
		return nil
	}
	socket, err := s.project.machine.notifySocket(s.notify())
	if err == nil && !s.notifies() {
		socket.Discard()
	}
	return err
}
