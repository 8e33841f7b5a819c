package process

import (
	"github.com/locald/locald/internal/keeper"
)

// Keep says how much the log stores in dir, which share it, keep: under the
// keeper that runs and under each that follows.
func (r *Runtime) Keep(dir string, much keeper.Retention) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept[dir] == much {
		return
	}
	if r.kept == nil {
		r.kept = map[string]keeper.Retention{}
	}
	r.kept[dir] = much
	if r.tenure != nil {
		_ = r.tenure.keeper.Keep(dir, much) // one that is gone is followed by another
	}
}
