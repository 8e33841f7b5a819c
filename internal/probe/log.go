package probe

import (
	"context"
	"regexp"

	"github.com/locald/locald/runtime"
)

// Log is ready when the instance writes a line that Pattern matches; it then
// returns.
type Log struct {
	Pattern *regexp.Regexp

	// Lines calls emit for each line of this run, from its first on, until ctx
	// ends. The line is valid during emit.
	Lines func(ctx context.Context, emit func(line []byte)) error
}

// Run implements Check.
func (l Log) Run(ctx context.Context, _ runtime.Instance, report func(Finding)) {
	found := false
	reading, stop := context.WithCancel(ctx)
	defer stop()
	report(Finding{Detail: "no line of its log matches " + l.Pattern.String()})
	err := l.Lines(reading, func(line []byte) {
		if !found && l.Pattern.Match(line) {
			found = true
			stop()
		}
	})
	switch {
	case ctx.Err() != nil:
	case found:
		report(Finding{Ready: true})
	case err != nil:
		report(Finding{Detail: "log: " + err.Error()})
	}
}
