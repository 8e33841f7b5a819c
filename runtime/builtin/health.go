package builtin

import (
	"context"
	"errors"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/locald/locald/runtime"
)

// What Docker takes where an image does not say.
const (
	healthInterval = 30 * time.Second
	healthTimeout  = 30 * time.Second
	healthRetries  = 3
	healthAtFirst  = 5 * time.Second // between checks within the start period
)

// healthcheck begins to run the check that the image brings.
func (in *instance) healthcheck(c *dockerspec.HealthcheckConfig) {
	if c == nil || len(c.Test) == 0 {
		return
	}
	var command []string
	switch c.Test[0] {
	case "CMD":
		command = c.Test[1:]
	case "CMD-SHELL":
		command = append([]string{"/bin/sh", "-c"}, c.Test[1:]...)
	}
	if len(command) == 0 {
		return // "NONE"
	}
	in.checked, in.health = true, runtime.HealthStarting
	go in.keepChecking(*c, command)
}

func (in *instance) keepChecking(c dockerspec.HealthcheckConfig, command []string) {
	orElse := func(d, usual time.Duration) time.Duration {
		if d <= 0 {
			return usual
		}
		return d
	}
	interval, retries := orElse(c.Interval, healthInterval), c.Retries
	if retries <= 0 {
		retries = healthRetries
	}
	began, passed, failures := time.Now(), false, 0
	for {
		starting := !passed && time.Since(began) < c.StartPeriod
		pause := interval
		if starting {
			pause = min(interval, orElse(c.StartInterval, healthAtFirst))
		}
		select {
		case <-time.After(pause):
		case <-in.life.Done():
			return
		}
		ctx, cancel := context.WithTimeout(in.life, orElse(c.Timeout, healthTimeout))
		exit, _, err := in.Exec(ctx, command)
		cancel()
		switch {
		case in.life.Err() != nil || errors.Is(err, runtime.ErrGone):
			return
		case err == nil && exit.Code == 0:
			passed, failures = true, 0
			in.setHealth(runtime.Healthy)
		case starting:
		default:
			if failures++; failures >= retries {
				in.setHealth(runtime.Unhealthy)
			}
		}
	}
}

func (in *instance) setHealth(now runtime.Health) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if now != in.health {
		in.health = now
		close(in.turned)
		in.turned = make(chan struct{})
	}
}

// Health reports what the image's check finds. It returns nil when the instance
// has ended.
func (in *instance) Health(ctx context.Context, changed func(runtime.Health)) error {
	var last runtime.Health
	for {
		in.mu.Lock()
		now, turned := in.health, in.turned
		in.mu.Unlock()
		if now != last && now != "" {
			changed(now)
			last = now
		}
		select {
		case <-turned:
		case <-in.life.Done():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
