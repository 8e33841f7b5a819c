package probe

import (
	"context"
	"time"
)

// Policy says how a health check that is written is repeated.
type Policy struct {
	Interval    time.Duration // between probes once it was ready; 0 is a second
	Timeout     time.Duration // of one probe; 0 is two seconds
	Retries     int           // failures in a row that make it unready; 0 is 3
	StartPeriod time.Duration // how long it may take to be ready first
}

func (p Policy) filled() Policy {
	if p.Interval <= 0 {
		p.Interval = time.Second
	}
	if p.Timeout <= 0 {
		p.Timeout = 2 * time.Second
	}
	if p.Retries <= 0 {
		p.Retries = 3
	}
	return p
}

// overdue is when an instance that never was ready has had its chances.
func (p Policy) overdue() time.Duration {
	return p.StartPeriod + time.Duration(p.Retries)*p.Interval
}

// steadily probes until ctx ends. attempt returns why the instance is not
// ready, or "".
func (p Policy) steadily(ctx context.Context, report func(Finding), attempt func(context.Context) string) {
	p = p.filled()
	report = changes(report)
	begin, ready, before, failures := time.Now(), false, false, 0
	for {
		asked := time.Since(begin)
		probe, cancel := context.WithTimeout(ctx, p.Timeout)
		why := attempt(probe)
		cancel()
		if ctx.Err() != nil {
			return
		}
		waited := time.Since(begin)
		if held := waited - asked - p.Timeout; held > pause {
			// The daemon itself was stopped, or could not run: what it saw says
			// nothing of the instance, which gets the time back and another round.
			begin = begin.Add(held)
			continue
		}
		switch {
		case why == "":
			ready, before, failures = true, true, 0
			report(Finding{Ready: true})
		case !before:
			report(Finding{Detail: why, Overdue: waited >= p.overdue()})
		default:
			failures++
			if failures >= p.Retries {
				ready = false
			}
			if !ready {
				report(Finding{Detail: why})
			}
		}
		delay := p.Interval
		if !before {
			delay = pace(waited, waited-asked)
		}
		held, slept := rest(ctx, delay)
		if !slept {
			return
		}
		begin = begin.Add(held)
	}
}
