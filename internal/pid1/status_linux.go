package pid1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// statusName is the file that tells how the start of a container ended.
const statusName = "status"

// status is its content.
type status struct {
	Error *Error `json:"error,omitempty"` // nil when the main program was executed
}

// writeStatus writes the file whole or not at all, and once: a second container
// in the directory tells nobody in the name of the first.
func writeStatus(dir string, s status) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, statusName)
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Link(name+".new", name), os.Remove(name+".new"))
}

// Ready returns once the main program of the container in dir has been executed,
// or with the *Error that kept it from that. It may be called before the outer
// process has begun, and again after it has ended. An outer process that is
// killed before it could tell tells nothing: ctx should end with it.
func Ready(ctx context.Context, dir string) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(filepath.Join(dir, statusName))
		if err == nil {
			var s status
			if err := json.Unmarshal(text, &s); err != nil {
				return fmt.Errorf("status in %s: %w", dir, err)
			}
			if s.Error != nil {
				return s.Error
			}
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("container in %s: %w", dir, ctx.Err())
		case <-tick.C:
		}
	}
}
