package probe

import (
	"context"
	"sync"

	"github.com/locald/locald/runtime"
)

// Unpaused runs a check of an instance, which is not ready while somebody has
// paused it, whatever the check finds meanwhile: what stands still answers
// nobody. Afterwards it is as the check found it last.
func Unpaused(ctx context.Context, in runtime.Instance, report func(Finding), check func(report func(Finding))) {
	pauser, can := in.(runtime.Pauser)
	if !can {
		check(report)
		return
	}
	var mu sync.Mutex
	var last Finding
	paused := false
	var following sync.WaitGroup
	following.Go(func() {
		_ = pauser.Paused(ctx, func(now bool) { // its error is that nobody can know
			mu.Lock()
			defer mu.Unlock()
			switch {
			case now:
				report(Finding{Detail: "somebody has paused it", Hint: "docker unpause " + in.Info().ContainerID})
			case paused:
				report(last)
			}
			paused = now
		})
	})
	check(func(f Finding) {
		mu.Lock()
		defer mu.Unlock()
		if last = f; !paused {
			report(f)
		}
	})
	following.Wait()
}
