//go:build !linux

package logs

import "os"

// send leaves everything to be written.
func send(_, _ *os.File, _ int64, _ int) (sent int) { return 0 }
