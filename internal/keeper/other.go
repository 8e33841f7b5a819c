//go:build !linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"
)

// errSystem says what is missing. Without a subreaper nothing of what a service
// forks could be promised to end with it.
var errSystem = fmt.Errorf("process services on %s: the system has no subreaper, and no other way to contain them is built in: %w", runtime.GOOS, errors.ErrUnsupported)

func spawn(Options) (*net.UnixConn, int, <-chan bool, error) { return nil, 0, nil, errSystem }

type orphans struct{}

func adoptOrphans(string) *orphans { return &orphans{} }

func (*orphans) begin(int) {}

func (*orphans) reapWhile(<-chan struct{}) {}

// Clear returns at once, as nothing can have been started.
func (k *Keeper) Clear(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// Main reports that this system has no keeper.
func Main([]string) int { return 2 }

// Found is a run of which marked processes are there.
type Found struct {
	Mark Mark
	PIDs []int
}

// Find finds nothing, as nothing can have been started.
func Find(context.Context, string, string) ([]Found, error) { return nil, nil }

// End has nothing to end.
func End(ctx context.Context, _ string, runs []Mark, _ time.Duration) error {
	if len(runs) > 0 {
		return errSystem
	}
	return ctx.Err()
}

// Gone returns at once, as nothing can have been started.
func Gone(ctx context.Context, _ string, _ Mark) error { return ctx.Err() }

// Holds reports false: no process is marked.
func (m Mark) Holds(int) bool { return false }

// Boot identifies the boot of the machine. A mark means nothing in another.
func Boot() (string, error) { return "", errSystem }

// PIDs returns the main process.
func (c *Child) PIDs() []int { return []int{c.pid} }

// Layers says that there is none.
func Layers() []Layer {
	return []Layer{{Name: "none", Needed: true, Detail: errSystem.Error()}}
}
