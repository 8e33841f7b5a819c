package container

import (
	"cmp"
	"time"
)

// checkInterval is that of a health check that does not say one.
const checkInterval = 30 * time.Second

// keepChecking has the container's health check run, at the interval that the
// image says, until the container has ended. What a check finds is told by the
// engine's event.
func (i *instance) keepChecking(interval time.Duration) {
	tick := time.NewTicker(cmp.Or(interval, checkInterval))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-i.ended:
			return
		case <-i.r.life.Done():
			return
		}
		_ = i.e.check(i.r.life, i.id) // the next one tells again
	}
}
