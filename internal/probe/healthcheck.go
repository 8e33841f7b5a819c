package probe

import (
	"context"
	"time"

	"github.com/locald/locald/runtime"
)

// Healthcheck is ready when the engine calls the instance, which must be a
// runtime.HealthReporter, healthy.
type Healthcheck struct{}

// Run implements Check. It returns when ctx or the instance ends.
func (Healthcheck) Run(ctx context.Context, in runtime.Instance, report func(Finding)) {
	reporter, ok := in.(runtime.HealthReporter)
	if !ok {
		report(Finding{Detail: "health: the runtime knows of no health check"})
		return
	}
	report = changes(report)
	begin := time.Now()
	for {
		err := reporter.Health(ctx, func(h runtime.Health) {
			switch h {
			case runtime.Healthy:
				report(Finding{Ready: true})
			case runtime.Unhealthy:
				report(Finding{Detail: "the image's health check fails"})
			default:
				report(Finding{Detail: "the image's health check has not passed yet"})
			}
		})
		// An engine that cannot be asked says nothing about the instance.
		if err == nil || !sleep(ctx, pace(time.Since(begin), 0)) {
			return
		}
	}
}
