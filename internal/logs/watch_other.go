//go:build !linux

package logs

import "context"

// dirWatch looks at the directory now and then.
type dirWatch struct{}

func watch(string) *dirWatch { return &dirWatch{} }

func (w *dirWatch) wait(ctx context.Context) error { return pause(ctx, pollEvery) }
func (w *dirWatch) listed() bool                   { return true }
func (w *dirWatch) stale() bool                    { return false }
func (w *dirWatch) replaced() bool                 { return false }
func (w *dirWatch) arm(string)                     {}
func (w *dirWatch) close()                         {}
