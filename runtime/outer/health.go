package outer

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

// Check begins to run the check that the image brings.
func (c *Container) Check(check *dockerspec.HealthcheckConfig) {
	if check == nil || len(check.Test) == 0 {
		return
	}
	var command []string
	switch check.Test[0] {
	case "CMD":
		command = check.Test[1:]
	case "CMD-SHELL":
		command = append([]string{"/bin/sh", "-c"}, check.Test[1:]...)
	}
	if len(command) == 0 {
		return // "NONE"
	}
	c.checked, c.health = true, runtime.HealthStarting
	go c.keepChecking(*check, command)
}

func (c *Container) keepChecking(check dockerspec.HealthcheckConfig, command []string) {
	orElse := func(d, usual time.Duration) time.Duration {
		if d <= 0 {
			return usual
		}
		return d
	}
	interval, retries := orElse(check.Interval, healthInterval), check.Retries
	if retries <= 0 {
		retries = healthRetries
	}
	began, passed, failures := time.Now(), false, 0
	for {
		starting := !passed && time.Since(began) < check.StartPeriod
		pause := interval
		if starting {
			pause = min(interval, orElse(check.StartInterval, healthAtFirst))
		}
		select {
		case <-time.After(pause):
		case <-c.life.Done():
			return
		}
		ctx, cancel := context.WithTimeout(c.life, orElse(check.Timeout, healthTimeout))
		exit, _, err := c.Exec(ctx, command)
		cancel()
		switch {
		case c.life.Err() != nil || errors.Is(err, runtime.ErrGone):
			return
		case err == nil && exit.Code == 0:
			passed, failures = true, 0
			c.setHealth(runtime.Healthy)
		case starting:
		default:
			if failures++; failures >= retries {
				c.setHealth(runtime.Unhealthy)
			}
		}
	}
}

func (c *Container) setHealth(now runtime.Health) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now != c.health {
		c.health = now
		close(c.turned)
		c.turned = make(chan struct{})
	}
}

// Health reports what the image's check finds. It returns nil when the instance
// has ended.
func (c *Container) Health(ctx context.Context, changed func(runtime.Health)) error {
	var last runtime.Health
	for {
		c.mu.Lock()
		now, turned := c.health, c.turned
		c.mu.Unlock()
		if now != last && now != "" {
			changed(now)
			last = now
		}
		select {
		case <-turned:
		case <-c.life.Done():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
