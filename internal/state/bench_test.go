package state

import (
	"path/filepath"
	"testing"
)

// BenchmarkWrite is what the care for a file costs.
func BenchmarkWrite(b *testing.B) {
	for name, care := range map[string]Care{"kill": {}, "kill and previous": {Previous: true}, "power": {Power: true, Previous: true}} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "p.json")
			for b.Loop() {
				if err := Write(path, Project{Format: Format, ID: "a", Dir: "/a"}, care); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
