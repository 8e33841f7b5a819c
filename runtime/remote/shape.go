package remote

import (
	"context"

	"github.com/locald/locald/runtime"
)

// Who uses an instance asks by assertion what it can do, so that one that can
// more is another type.

// shape gives an instance the abilities of the one that it stands for.
func shape(in *instance, can abilities) handle {
	switch {
	case can.Health && can.Pause:
		return &pausable{checked{in}}
	case can.Health:
		return &checked{in}
	}
	return in
}

// checked is an instance whose engine may check its health.
type checked struct{ *instance }

var _ runtime.HealthReporter = (*checked)(nil)

// Health is the contract's.
func (in *checked) Health(ctx context.Context, changed func(runtime.Health)) error {
	_, err := CallReports[struct{}](ctx, in.peer, methodHealth, in.args(), changed)
	return err
}

// pausable is one that somebody else may pause.
type pausable struct{ checked }

var _ runtime.Pauser = (*pausable)(nil)

// Paused is the contract's.
func (in *pausable) Paused(ctx context.Context, changed func(bool)) error {
	_, err := CallReports[struct{}](ctx, in.peer, methodPaused, in.args(), changed)
	return err
}
