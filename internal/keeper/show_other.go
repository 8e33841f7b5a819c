//go:build !linux

package keeper

// Shown is what people are shown of a process.
type Shown struct {
	PID  int
	Argv []string
	UID  int
	Held string
}

// Show knows no process.
func Show(int) (Shown, bool) { return Shown{}, false }

// Keepers finds none, as none can have been started.
func Keepers(string) ([]int, error) { return nil, nil }
